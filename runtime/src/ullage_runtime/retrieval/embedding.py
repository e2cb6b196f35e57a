"""What collections need of the pool's models: vectors of texts, and how long texts are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from ullage_runtime.core.pooled import Role
from ullage_runtime.retrieval.stores.port import Sparse


@dataclass(frozen=True, slots=True)
class Space:
    """The space that a model's vectors lie in."""

    model: str
    revision: str
    dimensions: int
    has_sparse: bool = False
    """Whether the model also weighs the tokens of a text."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, and the space they lie in."""

    vectors: tuple[tuple[float, ...], ...]
    space: Space
    sparse: tuple[Sparse, ...] = ()
    """The weights of the texts' tokens, where they were asked for."""

    def pairs(self) -> Iterator[tuple[tuple[float, ...], Sparse | None]]:
        """Return each text's vector, and the weights of its tokens if there are any."""
        return zip_longest(self.vectors, self.sparse)


class Embedder(Protocol):
    """One model that embeds texts. Every verb raises ServingError."""

    async def space(self, model: str) -> Space:
        """Return the space of a model's vectors, loading it if need be."""
        ...

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        role: Role,
        *,
        tenant: str,
        urgent: bool,
        sparse: bool = False,
    ) -> Embedded:
        """Return the texts' vectors; what is not urgent lets the urgent go first."""
        ...

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return how many of the model's tokens each text has."""
        ...
