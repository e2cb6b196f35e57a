"""A search as plain data: what is asked for, the queries it becomes, what answers make of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ullage_runtime.retrieval.points import shown_payload
from ullage_runtime.retrieval.stores.port import (
    DENSE,
    Branch,
    Filter,
    Found,
    Fusion,
    PointId,
    Query,
    Sparse,
)

MAX_CANDIDATES: Final = 1000
"""Findings that a search can page through: its candidate list."""
LEAST_CANDIDATES: Final = 100
"""Findings of each branch of a hybrid search, at least: with few, there is little to fuse."""
GROUPING_FACTOR: Final = 4
"""Candidates for each finding that is wanted in groups."""
RRF_K: Final = 60
HISTORY_WEIGHT: Final = 0.5
"""How much a question counts beside the one that came after it."""


class Mode(StrEnum):
    """What is searched."""

    DENSE = "Dense"
    SPARSE = "Sparse"
    HYBRID = "Hybrid"


class RankedBy(StrEnum):
    """What looks at findings again."""

    CROSS_ENCODER = "CrossEncoder"
    COLBERT = "ColBERT"


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for and how."""

    text: str | None = None
    dense: tuple[float, ...] | None = None
    sparse: Sparse | None = None
    mode: Mode = Mode.HYBRID
    limit: int = 10
    offset: int = 0
    filter: Filter | None = None
    threshold: float | None = None
    """Least score of a dense finding; fused scores are no similarities and have no threshold."""
    fusion: Fusion = Fusion.RRF
    rrf_k: int = RRF_K
    group_by: str | None = None
    group_size: int = 1
    exact: bool = False
    explain: bool = False
    history: tuple[str, ...] = ()
    """What was asked before, the last one first: it counts less the longer ago it was."""
    ranked: int = 0
    """Findings that a reranker looks at again; 0: it is not asked."""
    lasting: bool = True
    """Whether vectors of its texts may be kept on a disk; those of a conversation may not."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The question, and what was asked before."""
        return (self.text or "", *self.history)

    @property
    def wording(self) -> str:
        """The question as somebody understands it who has not heard what was asked before."""
        return " ".join((*self.history[:1], self.text or ""))

    @property
    def is_dense(self) -> bool:
        """Whether vectors of meaning are searched."""
        return self.mode is not Mode.SPARSE

    @property
    def candidates(self) -> int:
        """How many findings are asked of the store."""
        wanted = self.offset + self.limit
        if self.group_by is not None:
            wanted = max(wanted * self.group_size * GROUPING_FACTOR, LEAST_CANDIDATES)
        return min(max(wanted, self.ranked), MAX_CANDIDATES)


@dataclass(frozen=True, slots=True)
class Part:
    """What one branch says of a finding."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One finding."""

    id: PointId
    score: float
    payload: dict[str, Any]
    parts: Mapping[str, Part] | None = None
    """With `explain`: its rank and score in each branch that found it."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The answer to a search."""

    hits: tuple[Hit, ...]
    mode: Mode
    degraded: tuple[str, ...] = ()
    """What could not be used, though it was asked for."""
    ranked_by: RankedBy | None = None
    """What has looked at them again."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """How long each stage took."""


def queries_of(
    search: Search,
    dense: tuple[float, ...] | None,
    sparse: Sparse | None,
    params: Mapping[str, Any],
) -> list[Query]:
    """Return the query of a search and, where it is to be explained, each branch's own after it."""
    limit = search.candidates
    least = limit if dense is None or sparse is None else max(limit, LEAST_CANDIDATES)
    branches = []
    if dense is not None:
        # Zero means none: scores of cosines below it are findings like others.
        branches.append(Branch(dense, least, search.threshold or None))
    if sparse is not None:
        branches.append(Branch(sparse, least))
    asked = {**params, "exact": True} if search.exact else params
    whole = Query(
        tuple(branches), limit, search.fusion, search.rrf_k, filter=search.filter, params=asked
    )
    if not search.explain:
        return [whole]
    alone = [Query((b,), b.limit, filter=search.filter, params=asked) for b in branches]
    return [whole, *alone]


def candidates_of(
    search: Search, queries: Sequence[Query], answers: Sequence[list[Found]]
) -> list[Hit]:
    """Return all that was found, the best first."""
    parts = _parts(queries[1:], answers[1:]) if search.explain else None
    return [
        Hit(
            found.id,
            found.score,
            shown_payload(found.payload),
            None if parts is None else parts.get(found.id, {}),
        )
        for found in answers[0]
    ]


def page_of(search: Search, hits: list[Hit]) -> list[Hit]:
    """Return the page of findings that was asked for."""
    if search.group_by is not None:
        hits = grouped(hits, search.group_by, search.group_size, search.offset + search.limit)
        first = search.offset * search.group_size
        return hits[first:]
    return hits[search.offset : search.offset + search.limit]


def _parts(
    queries: Sequence[Query], answers: Sequence[list[Found]]
) -> dict[PointId, dict[str, Part]]:
    parts: dict[PointId, dict[str, Part]] = {}
    for query, answer in zip(queries, answers, strict=True):
        name = "dense" if query.branches[0].using == DENSE else "sparse"
        for rank, found in enumerate(answer, 1):
            parts.setdefault(found.id, {})[name] = Part(rank, found.score)
    return parts


def grouped(hits: Sequence[Hit], field_name: str, size: int, groups: int) -> list[Hit]:
    """Return the first findings of the first groups, best group first.

    A finding without the field is a group by itself.
    """
    kept: dict[object, list[Hit]] = {}
    for hit in hits:
        value = _at(hit.payload, field_name)
        key = ("no group", hit.id) if value is None else ("group", str(value))
        if key not in kept and len(kept) >= groups:
            continue
        group = kept.setdefault(key, [])
        if len(group) < size:
            group.append(hit)
    return [hit for group in kept.values() for hit in group]


def blended(vectors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return a question's vector with those of earlier ones, each half as heavy as the one before.

    J. J. Rocchio, "Relevance feedback in information retrieval", 1971, for where it is moved.
    """
    if len(vectors) == 1:
        return tuple(vectors[0])
    return tuple(
        math.fsum(value * HISTORY_WEIGHT**age for age, value in enumerate(values))
        for values in zip(*vectors, strict=True)
    )


def blended_words(vectors: Sequence[Sparse]) -> Sparse:
    """Return a question's words with those of earlier ones, likewise."""
    weights: dict[int, float] = {}
    for age, vector in enumerate(vectors):
        for index, value in zip(vector.indices, vector.values, strict=True):
            weights[index] = weights.get(index, 0.0) + value * HISTORY_WEIGHT**age
    return Sparse(tuple(sorted(weights)), tuple(weights[each] for each in sorted(weights)))


def towards(
    positive: Sequence[Sequence[float]], negative: Sequence[Sequence[float]]
) -> tuple[float, ...]:
    """Return where to look for what is like some vectors and unlike others.

    It is the mean of the ones, moved away from that of the others, as Qdrant does it.
    """
    wanted = _mean(positive)
    if not negative:
        return wanted
    return tuple(2 * w - u for w, u in zip(wanted, _mean(negative), strict=True))


def _mean(vectors: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(math.fsum(values) / len(vectors) for values in zip(*vectors, strict=True))


def _at(payload: Mapping[str, Any], path: str) -> Any:
    value: Any = payload
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return None if isinstance(value, dict | list) else value
