"""What collections need of the pool's models: vectors of texts, and how long texts are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ullage_runtime.core.pooled import Role


@dataclass(frozen=True, slots=True)
class Space:
    """The space that a model's vectors lie in."""

    model: str
    revision: str
    dimensions: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, and the space they lie in."""

    vectors: tuple[tuple[float, ...], ...]
    space: Space


class Embedder(Protocol):
    """One model that embeds texts. Every verb raises ServingError."""

    async def space(self, model: str) -> Space:
        """Return the space of a model's vectors, loading it if need be."""
        ...

    async def embed(
        self, model: str, texts: Sequence[str], role: Role, *, tenant: str, urgent: bool
    ) -> Embedded:
        """Return the texts' vectors; what is not urgent lets the urgent go first."""
        ...

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return how many of the model's tokens each text has."""
        ...
