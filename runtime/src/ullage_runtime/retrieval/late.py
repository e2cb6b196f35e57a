"""Findings scored again by the vectors of their tokens: late interaction.

Each token of the question counts as much as the token of the text that is most like it (O. Khattab
and M. Zaharia, "ColBERT", 2020). The store computes it, for the few candidates that it has found.
"""

from collections.abc import Sequence
from typing import Final

from ullage_runtime.core.pooled import TokenVectors
from ullage_runtime.core.vectors import FLOAT_BYTES
from ullage_runtime.retrieval.searching import Hit
from ullage_runtime.retrieval.stores.port import Branch, Found, Query

QUESTION_TOKENS: Final = 256
"""Tokens of a question that count: the work grows with each."""


def question_of(parts: Sequence[TokenVectors]) -> TokenVectors:
    """Return the tokens of a question and of what was asked before it, as one question."""
    width = parts[0].width
    joined = b"".join(part.values for part in parts)
    return TokenVectors(joined[: QUESTION_TOKENS * width * FLOAT_BYTES], width)


def late_query(question: TokenVectors, hits: Sequence[Hit]) -> Query:
    """Return the query that scores findings, and finds no others."""
    among = {"must": [{"has_id": [hit.id for hit in hits]}]}
    return Query((Branch(question, len(hits)),), len(hits), filter=among)


def late_scores(
    question: TokenVectors, hits: Sequence[Hit], found: Sequence[Found]
) -> list[float | None]:
    """Return each finding's score, at most 1; None for one whose tokens have no vectors."""
    tokens = len(question.values) // (question.width * FLOAT_BYTES)
    scores = {each.id: each.score / tokens for each in found}
    return [scores.get(hit.id) for hit in hits]
