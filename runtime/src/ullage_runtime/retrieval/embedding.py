"""What collections need of the pool's models: vectors of texts, and how long texts are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ullage_runtime.core.pooled import Output, Role, TokenVectors
from ullage_runtime.retrieval.stores.port import Sparse


@dataclass(frozen=True, slots=True)
class Space:
    """The space that a model's vectors lie in."""

    model: str
    revision: str
    dimensions: int
    has_sparse: bool = False
    """Whether the model also weighs the tokens of a text."""
    token_width: int = 0
    """Numbers of the vector that it also gives each token; 0 if it gives none."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a text becomes: its vector, and what else was asked of the same forward pass."""

    dense: tuple[float, ...]
    sparse: Sparse | None = None
    colbert: TokenVectors | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts, and the space they lie in."""

    texts: tuple[Vectors, ...]
    space: Space


def further_outputs(*, sparse: bool, colbert: bool) -> tuple[Output, ...]:
    """Return what is wanted of a model beside dense vectors."""
    wanted = {Output.SPARSE: sparse, Output.COLBERT: colbert}
    return tuple(output for output, is_wanted in wanted.items() if is_wanted)


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
        further: Sequence[Output] = (),
        lasting: bool = True,
    ) -> Embedded:
        """Return the texts' vectors; what is not urgent lets the urgent go first.

        `further` is what is wanted of the model beside dense vectors; without `lasting` none of it
        is kept on a disk.
        """
        ...

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        """Return how many of the model's tokens each text has."""
        ...
