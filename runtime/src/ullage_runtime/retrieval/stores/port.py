"""What collections need of a vector store.

A point carries the version of the mutation that wrote it in its payload. A deleted point leaves a
tombstone: its id, its version and nothing to be found by. So a writer that is late cannot bring a
point back, and cannot undo what is newer: it writes only over what is older or missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

from ullage_runtime.core.pooled import TokenVectors
from ullage_runtime.core.vectors import dimensions

VERSION: Final = "_v"
"""Payload field that holds the version of the mutation that wrote a point."""
DELETED: Final = "_deleted"
"""Payload field that only tombstones have."""
RESERVED: Final = frozenset({VERSION, DELETED})

DENSE: Final = "dense"
SPARSE: Final = "sparse"
COLBERT: Final = "colbert"
"""Names of a collection's vectors."""

LARGEST_POINT: Final = 1 << 20
"""Numbers that a point's vectors may have together, some 20 MB of JSON: servers take 32."""

PointId = int | str
Filter = Mapping[str, Any]
"""Qdrant's filter language."""
Payload = Mapping[str, Any]


def point_id(value: object) -> PointId | None:
    """Return a point's id, a number or a UUID in its usual spelling; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    if isinstance(value, str):
        try:
            return str(UUID(value))
        except ValueError:
            pass
    return None


class StoreError(Exception):
    """The store did not do what it was asked."""


class StoreUnavailable(StoreError):  # noqa: N818 - named after what is so
    """It cannot be reached, or has no time; the same request may succeed later."""


class StoreTimeout(StoreUnavailable):
    """It took longer than it may."""


class StoreRefused(StoreError):  # noqa: N818 - likewise
    """It will not do it, however often it is asked; the message is the store's own."""


class Distance(StrEnum):
    """How near two dense vectors are."""

    COSINE = "Cosine"
    DOT = "Dot"
    EUCLID = "Euclid"


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector: ascending dimensions, each with its weight."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A point as it is written and read; a tombstone has no vector."""

    id: PointId
    payload: Payload
    dense: tuple[float, ...] | None = None
    sparse: Sparse | None = None
    colbert: TokenVectors | None = None

    @property
    def numbers(self) -> int:
        """How many numbers its dense vectors have together."""
        tokens = 0 if self.colbert is None else dimensions(self.colbert.values)
        return len(self.dense or ()) + tokens

    @property
    def version(self) -> int:
        """The mutation that wrote it; 0 for a foreign writer's point."""
        return int(self.payload.get(VERSION) or 0)

    @property
    def is_tombstone(self) -> bool:
        """Whether it only says that there is no such point any more."""
        return bool(self.payload.get(DELETED))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection is laid out: what cannot be changed, and how it is indexed."""

    dimensions: int
    distance: Distance = Distance.COSINE
    has_sparse: bool = True
    has_idf: bool = True
    """Whether the store weighs what sparse vectors have by how rare it is, as words want it."""
    token_width: int = 0
    """Numbers of the vector that each token has; 0 where tokens have none."""
    hnsw: Mapping[str, int] = field(default_factory=dict)
    quantization: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """What a store says of a collection."""

    layout: Layout
    points: int
    """Approximate, tombstones included."""
    indexed_vectors: int
    is_optimised: bool
    deferred_points: int | None
    """Points that no search finds before they are optimised; None where the store has no such."""
    payload_indexes: Mapping[str, str]
    """Type of each indexed field."""
    is_put_off: bool = False
    """Whether there is something to build, and the store waits to be told: Qdrant's grey."""


class Fusion(StrEnum):
    """How two lists of findings become one."""

    RRF = "RRF"
    DBSF = "DBSF"


@dataclass(frozen=True, slots=True)
class Branch:
    """One search, by itself or as a part of a hybrid one."""

    vector: tuple[float, ...] | Sparse | TokenVectors
    """Of tokens' vectors, a score is the sum of what each is most like at best."""
    limit: int
    threshold: float | None = None

    @property
    def using(self) -> str:
        """Name of the vector that is searched."""
        match self.vector:
            case Sparse():
                return SPARSE
            case TokenVectors():
                return COLBERT
            case _:
                return DENSE


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; several branches are fused, and only here."""

    branches: tuple[Branch, ...]
    limit: int
    fusion: Fusion = Fusion.RRF
    rrf_k: int = 60
    filter: Filter | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """How thoroughly dense vectors are searched, in Qdrant's words."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Points that a store is to copy by itself, in the order of ids."""

    source: str
    target: str
    after: PointId | None
    """Where it begins; None at the first point."""
    last: PointId | None
    """Where it ends at the latest; None at the last point."""
    limit: int
    before: int
    """The version from which on points are left as they are, here and there."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a page of points that a store copied by itself."""

    next: PointId | None
    """Where the next page begins; None after the last point."""
    seen: int
    """Points of the page, tombstones included."""
    copied: int


@dataclass(frozen=True, slots=True)
class Found:
    """A point that was found."""

    id: PointId
    score: float
    payload: Payload


def older(version: int) -> Filter:
    """Return what finds points that are older than a version, or nobody's."""
    return {
        "should": [
            {"key": VERSION, "range": {"lt": version}},
            {"is_empty": {"key": VERSION}},
        ]
    }


class Store(Protocol):
    """A vector store. Every verb raises StoreUnavailable or StoreRefused."""

    async def create(self, collection: str, layout: Layout) -> None:
        """Make a collection."""
        ...

    async def describe(self, collection: str) -> Description | None:
        """Return what there is; None if there is no such collection."""
        ...

    async def alter(
        self, collection: str, hnsw: Mapping[str, int], quantization: Mapping[str, Any] | None
    ) -> None:
        """Change how it is indexed, if it differs: any change makes a store build anew."""
        ...

    async def index_field(self, collection: str, field_name: str, kind: str) -> None:
        """Index a field of the payload."""
        ...

    async def drop(self, collection: str) -> None:
        """Remove a collection and all that it holds, if it exists."""
        ...

    async def write(self, collection: str, points: Sequence[Point], version: int) -> None:
        """Write points over what is older than the version, or missing; return once it is so."""
        ...

    async def copy(self, collection: str, points: Sequence[Point], before: int) -> None:
        """Write points with the versions they have, over what is older than one, or missing.

        What was written from that version on is left as it is; returns once it is so.
        """
        ...

    async def carry(self, stretch: Stretch) -> Carried | None:
        """Copy points as `scroll` and `copy` do, within the store; None where it cannot."""
        ...

    async def build(self, collection: str) -> None:
        """Have its index built now, where the store would wait for more to come first.

        Returns at once; `describe` then says when there is nothing left to build.
        """
        ...

    async def purge(self, collection: str, version: int) -> None:
        """Remove tombstones up to a version."""
        ...

    async def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """Return those of the points that exist, tombstones among them."""
        ...

    async def scroll(
        self,
        collection: str,
        *,
        after: PointId | None = None,
        limit: int,
        where: Filter | None = None,
        vectors: bool = False,
        fields: Sequence[str] | None = None,
    ) -> tuple[list[Point], PointId | None]:
        """Return a page in the order of ids, and where the next one begins; tombstones included.

        Of payloads only the given fields, or all.
        """
        ...

    async def count(self, collection: str, where: Filter | None = None) -> int:
        """Count points exactly."""
        ...

    async def query(
        self, collection: str, queries: Sequence[Query], *, seconds: float
    ) -> list[list[Found]]:
        """Answer queries; tombstones are never found. Raises StoreTimeout."""
        ...

    async def aliases(self) -> dict[str, str]:
        """Return every alias with its collection."""
        ...

    async def point_alias(self, alias: str, collection: str) -> None:
        """Make an alias, or have an existing one point elsewhere, in one step."""
        ...

    async def drop_alias(self, alias: str) -> None:
        """Remove an alias, if it exists; what it pointed to stays."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
