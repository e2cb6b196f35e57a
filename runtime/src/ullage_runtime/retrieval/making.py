"""What the vectors of a collection are made with, and points brought from one making to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from ullage_api.kinds.vector_collection import MultivectorType, SparseType
from ullage_runtime.retrieval.stores.port import Point, PointId


@dataclass(frozen=True, slots=True)
class Making:
    """What dense and sparse vectors come from: only those of one making can be compared."""

    model: str
    revision: str = ""
    sparse: SparseType = SparseType.BM25
    multivector: MultivectorType = MultivectorType.NONE

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Return what a routing or a record says."""
        return cls(
            str(data.get("name") or ""),
            str(data.get("revision") or ""),
            SparseType(data.get("sparse") or SparseType.BM25),
            MultivectorType(data.get("multivector") or MultivectorType.NONE),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as `of` reads it."""
        return {
            "name": self.model,
            "revision": self.revision,
            "sparse": self.sparse.value,
            "multivector": self.multivector.value,
        }

    def embeds_like(self, other: Self) -> bool:
        """Whether dense vectors of both can be compared: a revision may have several names."""
        if self.revision and other.revision:
            return self.revision == other.revision
        return self.model == other.model

    def makes_like(self, other: Self) -> bool:
        """Whether all that the other makes is as this one makes it."""
        same = self.sparse is other.sparse and self.multivector is other.multivector
        return same and self.embeds_like(other)


@dataclass(frozen=True, slots=True)
class Remade:
    """Points as another collection wants them."""

    points: tuple[Point, ...]
    failed: Mapping[PointId, str] = field(default_factory=dict)
    """Why the vectors of some could not be made; these are without."""


class Remaker(Protocol):
    """Makes the vectors of points anew."""

    async def remade(self, points: Sequence[Point], source: Making, target: Making) -> Remade:
        """Return points with vectors of another making; raises StoreUnavailable to try again."""
        ...


class NoRemaker:
    """For logs whose collections all have one making."""

    async def remade(self, points: Sequence[Point], source: Making, target: Making) -> Remade:
        """Raise RuntimeError: nobody has said how."""
        raise RuntimeError(f"nobody makes {len(points)} points of {source} into {target}")
