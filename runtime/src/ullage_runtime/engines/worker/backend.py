"""What a worker needs of the library inside it: a synchronous engine that moves in steps."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.errors import ServingError
from ullage_runtime.core.pooled import PooledPart, PooledRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens

Outcome = tuple[str, Chunk | PooledPart | ServingError]
"""A request's id and what a step did for it.

An error is last, as are a chunk with a finish reason and a part that says so.
"""

LogSink = Callable[[str, str], None]
"""Takes a level (`debug`, `info`, `warning`, `error`) and one line."""


class Prepared(Protocol):
    """A request of which everything is done that does not need the engine's thread."""

    def submit(self) -> None:
        """Hand it to the engine; what is wrong with it comes out of a later step."""
        ...

    def close(self) -> None:
        """Give back what it holds, instead of `submit`."""
        ...


class Backend(Protocol):
    """An engine as the worker drives it.

    Every call comes from the one thread that owns it, unless it says otherwise.
    """

    @property
    def name(self) -> str:
        """Name of the engine, as status shows it."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    @property
    def stats(self) -> EngineStats:
        """What it does, as of its last step; any thread may ask."""
        ...

    def estimate(self, spec: EngineSpec) -> Footprint:
        """Return what a load would take; raises LoadError."""
        ...

    def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        ...

    def prepare(self, request: GenerateRequest | PooledRequest, arrival: float) -> Prepared:
        """Return a request that is ready for the engine; raises ServingError.

        `arrival` is on the monotonic clock. Threads of their own call it, while the engine works.
        """
        ...

    def tokenized(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens; raises ServingError. Another thread calls it, likewise."""
        ...

    def detokenized(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens; raises ServingError. Another thread calls it, likewise."""
        ...

    def stop_preparing(self) -> None:
        """Make what other threads do here fail soon; any thread may call it."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request; the next step says of a generation that it was cancelled."""
        ...

    def step(self) -> Sequence[Outcome]:
        """Advance every running generation by one token, or compute one batch of texts."""
        ...

    def save_prefixes(self, path: str, limit: int) -> int:
        """Write what a later load of the same model may begin with, at most so many bytes.

        Returns the bytes written; raises OSError.
        """
        ...

    def share_cpus(self, workers: int) -> None:
        """Take note of how many workers, with this one, compute on the same CPUs from now on."""
        ...

    def close(self) -> None:
        """Give everything back; idempotent."""
        ...
