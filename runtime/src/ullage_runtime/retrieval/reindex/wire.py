"""What a reindex worker and the pod that owns the collection say to each other.

The worker drives: it asks for pages, keeps the pace, compares and judges. The pod does what touches
data, so vectors never cross the wire, and a worker whose lease was taken can change nothing: every
change carries the lease's token, and a stale one is refused.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_runtime.retrieval.stores.port import PointId

TOKEN_VARIABLE: Final = "ULLAGE_POOL_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable in which a worker finds the pool's token."""
LEASE_SECONDS: Final = 20.0
"""How long a worker may be silent before another one takes over."""
MAX_PAGE: Final = 256
"""Points of one page of copies."""
MAX_VERSIONS: Final = 4096
"""Points of one page of versions."""
MAX_RANGES: Final = 256

Ids = Annotated[list[PointId], Field(max_length=MAX_VERSIONS)]


class Range(KubeModel):
    """A frozen range of ids, in the store's order: numbers first, then UUIDs."""

    index: Annotated[int, Field(ge=0, lt=MAX_RANGES)]
    first: PointId | None = None
    """The first id of it; None: from the beginning."""
    last: PointId | None = None
    """The last id of it; None: to the end, wherever that is when it is reached."""


class RangeProgress(KubeModel):
    """How far a range has been copied."""

    range: Range
    next: PointId | None = None
    """Where to go on; None at the range's beginning."""
    is_done: bool = False
    copied: int = 0
    skipped: int = 0
    failed: int = 0


class Load(KubeModel):
    """How busy the pod is with what matters more."""

    search_p95_seconds: float | None = None
    """What 95 % of the searches of late did not exceed; absent without any."""
    searches: int = 0
    """How many that were."""
    queue: int = 0
    """Requests that wait for the collection's models."""
    level: str | None = None
    """How full memory is: Low, Moderate, High or Critical."""
    lag: int = 0
    """Accepted changes that the target has yet to see."""


class LeaseRequest(KubeModel):
    """A worker asks to drive a job, or to go on driving it."""

    worker: Annotated[str, Field(min_length=1, max_length=128)]
    token: int | None = None
    """The lease's token, to go on; absent to begin."""
    ends: bool = False
    """Whether the worker goes, and another one may drive at once."""


class Lease(KubeModel):
    """The right to drive a job for some seconds, and how things stand."""

    token: int
    """Rises with every lease that is given; what carries an older one is refused."""
    seconds: float = LEASE_SECONDS
    uid: str
    collection: str
    phase: ReindexPhase
    """Copy pages while it is Copying, judge while it is Verifying, else look again later."""
    plan: ReindexPlan | None = None
    source: str | None = None
    """Physical collection that is copied from."""
    target: str | None = None
    """Physical collection that is copied to."""
    total: int = 0
    points_per_second: int | None = None
    max_in_flight: int | None = None
    sample_size: int | None = None
    min_recall_percent: int | None = None
    max_failed: int = 0
    """How many points may be left out."""
    failed: int = 0
    """How many are, by copying or by what was written meanwhile."""
    keeps_vectors: bool = False
    """Whether the target has the very vectors of the source."""
    configuration: str = ""
    """What distinguishes this way from source to target; a checkpoint of another one is void."""
    checkpoint: tuple[RangeProgress, ...] = ()
    """What was kept last; empty when there is none for this configuration."""
    load: Load = Load()


class PageRequest(KubeModel):
    """Copy a page of points, those of a range from an id on."""

    token: int
    range: Range
    next: PointId | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 128


class FailedPoint(KubeModel):
    """A point that could not be brought to the target as it is wanted."""

    id: PointId
    reason: str


class PageResult(KubeModel):
    """What became of a page: the target has it on its disk."""

    next: PointId | None
    """Where the next page begins; None at the range's end."""
    copied: int
    skipped: int
    """Points that are written after the copy began, and reach the target by that."""
    failed: tuple[FailedPoint, ...] = ()
    seconds: float = 0.0
    load: Load = Load()


class CheckpointRequest(KubeModel):
    """Keep how far the copy has come."""

    token: int
    configuration: str
    ranges: Annotated[tuple[RangeProgress, ...], Field(max_length=MAX_RANGES)]
    rate: float = 0.0
    """Points per second of late."""
    eta_seconds: int | None = None


class VersionsRequest(KubeModel):
    """Ask for versions of certain points, after everything accepted so far is applied."""

    physical: str
    ids: Ids


class PointVersion(KubeModel):
    """A live point and the mutation that wrote it; 0 for a foreign writer's."""

    id: PointId
    version: int


class Versions(KubeModel):
    """A page of live points in the store's order; deleted ones are not among them."""

    points: tuple[PointVersion, ...]
    next: PointId | None = None
    settled: int
    """Everything up to this version was applied on both sides before the page was read."""


class HashesRequest(KubeModel):
    """Ask for what distinguishes points' contents, on one side."""

    physical: str
    ids: Ids


class PointHash(KubeModel):
    """What distinguishes a point's content."""

    id: PointId
    version: int
    payload: str
    """Hash of its payload."""
    vectors: str
    """Hash of its vectors, rounded so that two stores of the same vector agree."""
    has_dense: bool
    has_text: bool


class Hashes(KubeModel):
    """Contents of some points; those that do not exist are left out."""

    points: tuple[PointHash, ...]


class ProbesRequest(KubeModel):
    """Ask how well the target is searched: samples of its own points look for themselves."""

    token: int
    samples: Annotated[int, Field(ge=1, le=1000)] = 100


class Probes(KubeModel):
    """How well the target is searched."""

    samples: int
    recall_percent: int | None = None
    """Share of the ten nearest, by exact search, that searches of the index found."""
    self_retrieval_percent: int | None = None
    """Share of the samples that are found first by their own text or vector."""
    p95_seconds: float | None = None


class Schema(KubeModel):
    """How both sides are laid out, and what the target is to be."""

    wanted: dict[str, Any]
    target: dict[str, Any]
    differences: tuple[str, ...] = ()
    """What of the target is not as it is wanted, each with both values."""


class VerificationRequest(KubeModel):
    """The worker's judgement."""

    token: int
    passed: bool
    results: dict[str, Any] = Field(default_factory=dict)
    """Numbers and words of each gate, as the status shows them."""
    message: str = ""


class FailureRequest(KubeModel):
    """The worker gives up: no repetition would help."""

    token: int
    message: Annotated[str, Field(min_length=1, max_length=2000)]


class Done(KubeModel):
    """A change that was made."""

    status: Literal["ok"] = "ok"
