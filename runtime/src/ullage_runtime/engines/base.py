"""The Engine protocol: what a model's engine can do, whatever library is inside.

The inside of a worker process implements it on top of a library; the outside is a proxy with the
same shape that talks to the process. The server only ever sees the outside.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, RerankRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens


class Engine(Protocol):
    """One model's engine, from before its load to after its unload.

    What a loaded model can be asked for is in `Loaded.abilities`; nothing else may be.
    """

    @property
    def pid(self) -> int:
        """Process that the engine runs in."""
        ...

    @property
    def starts_alone(self) -> bool:
        """Whether no other engine of its kind may start meanwhile."""
        ...

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines that its process said."""
        ...

    async def estimate(self, spec: EngineSpec) -> Footprint:
        """Return the bytes a load would take; raises LoadError(InvalidModel) for a bad file."""
        ...

    async def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Generate; closing the iterator cancels within one step; raises ServingError."""
        ...

    async def embed(self, request: EmbedRequest) -> PooledAnswer:
        """Return a vector of length 1 for each text; raises ServingError.

        Cancelling the call ends the work within one step, here as in `rerank`.
        """
        ...

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        """Return a raw score for each document; raises ServingError."""
        ...

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens, whatever the engine computes meanwhile; raises ServingError."""
        ...

    async def detokenize(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens, likewise."""
        ...

    async def save_prefixes(self, path: str, limit: int) -> int:
        """Write what a later load of the same model may begin with to a file that there is.

        Returns the bytes written, at most `limit`: 0 when there is nothing to be saved. Raises
        EngineFailed or LoadError.
        """
        ...

    async def stats(self) -> EngineStats:
        """Return what the engine takes and does right now."""
        ...

    async def ended(self) -> str:
        """Wait until the engine is gone, however it went, and return how."""
        ...

    async def unload(self) -> None:
        """Give everything back; idempotent."""
        ...
