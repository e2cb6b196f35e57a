"""PodReport: what one pod has, and why; read by the operator, or by the command line."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ullage_api.conditions import Reason
from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.memory import Eviction, MemoryLevel
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_status import (
    ReindexPoints,
    ReindexTarget,
    ReindexVerification,
)
from ullage_api.kinds.rollout import Strategy, SwapStep, Transition
from ullage_api.names import API_VERSION


class DeviceKind(StrEnum):
    """What kind of memory a device's bytes are."""

    GPU = "GPU"
    HOST = "Host"


class ReportedDevice(KubeModel):
    """One device's memory, in bytes."""

    id: str
    kind: DeviceKind
    name: str = ""
    total_bytes: int
    budget_bytes: int
    used_bytes: int
    """What is in use, by anyone: the driver's word, or what the pod's processes really take."""
    own_bytes: int | None = None
    """What the pod's own processes take of it; absent where the driver does not know them."""
    ledger_bytes: int
    """What the pod's own ledger accounts for."""
    warm_bytes: int = 0
    """Of that, what is kept of models that have left, for their return."""
    level: MemoryLevel | None = None
    """How full it is; absent until it was read, and when it cannot be read any more."""
    throttling: tuple[str, ...] = ()
    """Why it runs slower than it could: heat, power, or a CPU quota."""
    stalled: float | None = None
    """Share of the last 10 s in which some process of the pod waited for memory, 0 to 1."""


class ReportedAdapter(KubeModel):
    """An adapter of a revision, whose digest is known."""

    name: str
    sha256: str


class ReportedRevision(KubeModel):
    """The outcome of one revision on this pod."""

    revision: str | None = None
    """Name of the revision; absent until the file's digest is known."""
    uri: str
    sha256: str | None = None
    file_bytes: int | None = None
    """Bytes of the model's file and those of its adapters."""
    adapters: tuple[ReportedAdapter, ...] = ()
    engine: str | None = None
    context_length: int | None = None
    device: str | None = None
    layers_offloaded: int | None = None
    layers_total: int | None = None
    estimated_bytes: int | None = None
    resident_bytes: int | None = None
    load_seconds: float | None = None
    promote_seconds: float | None = None
    """How long it last took to come back from the warm tier."""


class ReportedArm(KubeModel):
    """One of two revisions whose answers are compared."""

    revision: str
    weight: int
    """Percent of the requests that it gets."""
    requests: int = 0
    """Of those that it got since the comparison began, how many have ended."""
    errors: int = 0
    token_milliseconds: float | None = None
    """Median time that a token of an answer took, or an answer without tokens."""
    slow_token_milliseconds: float | None = None
    """Likewise, what 95 % of the answers did not exceed."""


class ReportedSwap(KubeModel):
    """How the newest target takes the place of what answered before it."""

    strategy: Strategy | None = None
    """The one that was taken, never Auto; absent until it is known."""
    step: SwapStep | None = None
    """What is being done; absent once it is over."""
    previous: str | None = None
    """Revision that answered before."""
    target: str | None = None
    """Revision that takes over; absent until its digest is known."""
    started: str
    """When it began, in UTC."""
    seconds: float | None = None
    """How long it took in all, once it is over."""
    drain_seconds: float | None = None
    """How long new requests were held while the old revision finished its own."""
    log: tuple[str, ...] = ()
    """The last lines of the engine's process, when the target could not be loaded."""
    arms: tuple[ReportedArm, ...] = ()
    """What the two revisions did, the previous one first, while or after they are compared."""


class ReportedModel(KubeModel):
    """One model on this pod."""

    name: str
    uid: str = ""
    generation: int = 0
    """Generation of the ModelDeployment that this entry speaks of."""
    residency: Residency = Residency.DISK
    reason: Reason = Reason.PENDING
    message: str = ""
    host_bytes: int = 0
    """What host memory keeps of it since it left, for its return."""
    final: bool = False
    """Whether nothing but a change of the spec can mend what `reason` says."""
    weights_ready: bool = False
    """Whether the target's file is complete and verified in the cache."""
    active: ReportedRevision | None = None
    """What answers now."""
    target: ReportedRevision | None = None
    """What the spec asks for; equal to `active` once it serves."""
    fetched_bytes: int | None = None
    fetch_total_bytes: int | None = None
    transition: Transition | None = None
    """Where it stands between `active` and `target`; absent where this pod is not to hold it."""
    swap: ReportedSwap | None = None
    """The swap under way, or the last one since the process began."""
    last_eviction: Eviction | None = None
    """When and why it last left this pod's memory."""
    restarts: int = 0
    """Times its engine process died since it was last healthy for long."""
    requests_running: int = 0
    requests_waiting: int = 0
    generated_tokens: int = 0
    """Tokens its engines have generated since the pod began."""


class CollectionState(StrEnum):
    """How far a collection has come on a pod."""

    OPENING = "Opening"
    READY = "Ready"
    FAILED = "Failed"
    """It could not be opened; it is tried again."""
    DROPPED = "Dropped"
    """Its data is gone, as was asked."""


class ReportedCollection(KubeModel):
    """One collection on this pod."""

    name: str
    uid: str = ""
    generation: int = 0
    """Generation of the VectorCollection that this entry speaks of."""
    state: CollectionState = CollectionState.OPENING
    message: str = ""
    """Why it is not ready."""
    differences: tuple[str, ...] = ()
    """What only a reindex brings about, each with both values."""
    aliases: tuple[str, ...] = ()
    """Further names that it answers to."""
    alias_problem: str = ""
    """Why its store does not have one of them for it."""
    physical: str | None = None
    epoch: int | None = None
    model: str | None = None
    model_revision: str | None = None
    dimensions: int | None = None
    points: int | None = None
    documents: int | None = None
    indexed_vectors: int | None = None
    is_indexed: bool | None = None
    """Whether the store has nothing left to build; absent until it was asked."""
    pending_changes: int | None = None
    """Accepted changes that the store has yet to see."""
    deferred_points: int | None = None
    """Points that no search finds before they are optimised; absent where there is no such."""
    recall_percent: int | None = None
    """Share of the nearest points that searches found of late; absent before the first search."""


class ReportedReindex(KubeModel):
    """One reindex job on this pod."""

    name: str
    uid: str = ""
    generation: int = 0
    """Generation of the ReindexJob that this entry speaks of."""
    collection: str
    phase: ReindexPhase = ReindexPhase.PENDING
    reason: Reason = Reason.PENDING
    """Why it is there, in a word; once it failed or was cancelled, why that was."""
    message: str = ""
    plan: ReindexPlan | None = None
    plan_reason: str = ""
    target: ReindexTarget | None = None
    points: ReindexPoints = ReindexPoints()
    rate: int | None = None
    """Points per second of late."""
    eta_seconds: int | None = None
    verification: ReindexVerification | None = None
    checkpoint_time: str | None = None
    switched: bool = False
    """Whether the target is what is searched."""
    started_at: str | None = None
    """When it was first worked on, in UTC."""
    finished_at: str | None = None
    """When it was over, in UTC."""


@dataclass(frozen=True, slots=True)
class ReportedRetrieval:
    """What a pod reports besides its models."""

    collections: tuple[ReportedCollection, ...] = ()
    reindexes: tuple[ReportedReindex, ...] = ()


class PodReport(KubeModel):
    """What a pod has and does.

    `sequence` rises with each change that a custom resource's status shows; `boot_id` names the
    process, so that a restart is recognised although the sequence begins anew.
    """

    api_version: Literal["ullage.dev/v1alpha1"] = API_VERSION
    kind: Literal["PodReport"] = "PodReport"
    pod: str
    ordinal: int
    boot_id: str
    version: str = ""
    sequence: int
    acknowledged: int = 0
    """Sequence of the PoolDesired in effect; 0 before the first."""
    acknowledged_hash: str = ""
    level: MemoryLevel | None = None
    """How full the memory is that models are loaded into."""
    devices: tuple[ReportedDevice, ...] = ()
    models: tuple[ReportedModel, ...] = ()
    collections: tuple[ReportedCollection, ...] = ()
    reindexes: tuple[ReportedReindex, ...] = ()

    def collection(self, name: str) -> ReportedCollection | None:
        """Return the entry of a collection, or None."""
        return next((c for c in self.collections if c.name == name), None)

    def reindex(self, name: str) -> ReportedReindex | None:
        """Return the entry of a reindex job, or None."""
        return next((r for r in self.reindexes if r.name == name), None)

    def model(self, name: str) -> ReportedModel | None:
        """Return the entry of a model, or None."""
        return next((m for m in self.models if m.name == name), None)
