"""What the HTTP layer and the command line need of the models, and the models of their sources."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.core.decisions import Decision
from ullage_runtime.core.domain import Chunk, GenerateRequest, Loaded, ModelCard
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, RerankRequest, Role
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens

MOVING: Final = ("requests_running", "requests_waiting", "generated_tokens")
"""Fields of a reported model that move all the time; a change of them is none of the report's."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class CachedModel:
    """A model whose files are complete and verified; they stay at least as long as this object."""

    path: str
    """What an engine opens: the file, the main one of several, or their folder."""
    sha256: str
    """Of the file; of several, the digest of their list, the same wherever they came from."""
    size: int
    """Bytes of all files."""


InUse = Callable[[Sequence[str]], Sequence[str]]
"""Takes a model's names; returns the collections that embed with it."""


class Inspect(Protocol):
    """Looks at the beginning of a file and may spare us the rest; equal ones look alike."""

    async def __call__(self, beginning: Path, total: int) -> bool:
        """Return whether it has seen enough, of a file of so many bytes; raises LoadError."""
        ...

    def __hash__(self) -> int:
        """Return what is the same for equal ones."""
        ...


class ModelSourcePort(Protocol):
    """Where model files come from: a source by scheme, and the cache in front of it."""

    async def fetch(
        self,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        progress: Callable[[int, int | None], None],
        inspect: Inspect | None = None,
        precision: PrecisionType = PrecisionType.AUTO,
    ) -> CachedModel:
        """Return the file of a URI, fetching what the cache does not hold.

        `precision` says which of a folder's builds is meant, where it holds several.
        `progress` is told the bytes held so far and the total, if known. `inspect` is shown the
        beginning of a file that is being fetched. Raises LoadError with SOURCE_UNAVAILABLE,
        CHECKSUM_MISMATCH or INVALID_MODEL, and whatever `inspect` raises. Cancelling keeps what
        can be resumed.
        """
        ...


class Lease(Protocol):
    """A request's hold on one generation: as long as it lasts, that generation stays."""

    model: str
    revision: str
    loaded: Loaded
    """What the engine says of the generation."""
    deadline: float
    """When the request's time is over, on the event loop's clock."""
    make_way: asyncio.Event | None
    """Set once work of which nothing was told is to be broken off; None for what never is."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Generate on the leased generation; see `Engine.generate`."""
        ...

    async def embed(self, request: EmbedRequest, role: Role | None = None) -> PooledAnswer:
        """Embed texts, each after the generation's own instruction for their role, if it has one.

        See `Engine.embed`.
        """
        ...

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        """Score documents; see `Engine.rerank`."""
        ...

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Tokenize a text; see `Engine.tokenize`."""
        ...

    async def detokenize(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens; see `Engine.detokenize`."""
        ...


class Models(Protocol):
    """The models of this pod."""

    async def apply(self, desired: PoolDesired) -> bool:
        """Accept a desired document and begin to bring it about; False if it is older than ours.

        Raises ValueError when the document cannot be meant for this pod.
        """
        ...

    @property
    def desired(self) -> PoolDesired | None:
        """The document in effect, or None before the first."""
        ...

    def find(self, name: str) -> DesiredModel:
        """Return the model of a name or alias; raises ModelNotFound, which lists known names."""
        ...

    def revisions(self, name: str) -> Sequence[DesiredRevision]:
        """Return what of a model has answered here for good since the process began.

        By its digests, the latest first; nothing of a model that is not here.
        """
        ...

    def is_local(self, model: DesiredModel) -> bool:
        """Whether this pod should hold the model itself."""
        ...

    def revision(self, model: DesiredModel) -> str | None:
        """Return the revision that answers now, or None while none is in memory."""
        ...

    def lease(
        self,
        model: DesiredModel,
        *,
        tenant: str = "",
        priority: int = 0,
        beside: bool = False,
        until: float | None = None,
        background: bool = False,
    ) -> AbstractAsyncContextManager[Lease]:
        """Bind the model's current generation, waiting in its bounded queue if need be.

        `tenant` is who asks: tenants take turns. A `priority` below 0 goes after the others, until
        it has waited for so long that it counts as one of them.

        A lease `beside` the engine's work, for its vocabulary alone, waits for a generation but
        not for room in it.

        `until` is the deadline of a request that comes again, because the engine died that had it:
        it goes before those who wait, however many they are.

        What nobody waits for is in the `background`: while memory is critical it waits, and is
        asked to make way; so are all requests of a model whose priority is `Batch`.

        Raises Overloaded, ModelLoading, ModelSuspended, ModelUnavailable, InsufficientMemory.
        """
        ...

    def cards(self) -> Sequence[ModelCard]:
        """Return every model of the pool, sorted by name."""
        ...

    async def sample(self) -> None:
        """Measure what loaded models take and do, for the report and for metrics."""
        ...

    def report(self) -> PodReport:
        """Return the pod's report as of now."""
        ...

    def decisions(self) -> Sequence[Decision]:
        """Return the latest models that left memory or were not let in, newest first."""
        ...

    async def changed(self, after: int, timeout: float) -> PodReport:  # noqa: ASYNC109
        """Return the report as soon as its sequence exceeds `after`, at the latest at the timeout.

        A caller that knows another boot's sequence passes -1 and is answered at once.
        """
        ...

    def models_changed_since(self, sequence: int) -> frozenset[str] | None:
        """Return the names of the models that changed or went since; None if nobody can tell."""
        ...

    async def close(self, drain_seconds: float) -> None:
        """Stop accepting, let leases end within the limit, unload everything."""
        ...
