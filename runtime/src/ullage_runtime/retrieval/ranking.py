"""Findings looked at again by a cross-encoder, which reads question and text together.

R. Nogueira and K. Cho, "Passage Re-ranking with BERT", 2019.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from ullage_api.kinds.vector_collection import (
    DEFAULT_RERANK_FACTOR,
    DEFAULT_RERANK_MAX,
    DEFAULT_RERANK_MIN,
    RerankSettings,
)
from ullage_runtime.retrieval.searching import Hit, Part


class Ranker(Protocol):
    """Models that score texts by how well they answer a question."""

    async def rank(
        self, model: str, query: str, texts: Sequence[str], *, tenant: str
    ) -> tuple[float, ...]:
        """Return a score from 0 to 1 for each text; raises ServingError."""
        ...


def ranked_of(settings: RerankSettings | None, limit: int) -> int:
    """Return how many findings are looked at again where so many are wanted."""
    factor, low, high = (None,) * 3
    if settings is not None:
        factor, low, high = settings.factor, settings.min, settings.max
    least = low or min(DEFAULT_RERANK_MIN, high or DEFAULT_RERANK_MIN)
    most = max(high or DEFAULT_RERANK_MAX, least)
    wanted = limit * (factor or DEFAULT_RERANK_FACTOR)
    return max(limit, min(max(wanted, least), most))


def in_new_order(hits: Sequence[Hit], scores: Sequence[float | None]) -> list[Hit]:
    """Return findings by their new scores; those without one, which have no text, come last.

    What is explained then tells the rank and score before it, as `fused`.
    """
    ranked = sorted(
        zip(hits, scores, range(1, len(hits) + 1), strict=True),
        key=lambda each: (each[1] is None, -(each[1] or 0.0), each[2]),
    )
    return [_scored(hit, score or 0.0, rank) for hit, score, rank in ranked]


def _scored(hit: Hit, score: float, rank: int) -> Hit:
    parts = hit.parts
    if parts is not None:
        parts = {**parts, "fused": Part(rank, hit.score)}
    return replace(hit, score=score, parts=parts)
