"""What a reconcile has seen: plain facts, gathered afresh, from which plans are decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.revision import Outcome
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.profile import PoolProfile
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import DesiredRevision, PoolDesired

Member = ModelDeployment | VectorCollection
"""What names a pool, and is among the owners of its objects."""

Owner = Member | ReindexJob
"""What objects of ours belong to."""

REPORT_LIMIT_SECONDS: Final = 60.0
"""Age above which a pod's report counts as missing."""

FIRST_REPORT_SECONDS: Final = 10.0
"""How long a pod that just became ready, or an operator that just started, is waited for."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """What the operator knows of itself."""

    namespace: str
    """Where it runs; the pool's NetworkPolicy lets this namespace's operator pods in."""
    pod_labels: Mapping[str, str] = field(
        default_factory=lambda: {"app.kubernetes.io/name": "ullage-operator"}
    )


@dataclass(frozen=True, slots=True)
class PoolToken:
    """The secret that a pool's pods demand on `/internal`, and the name of its Secret."""

    value: str
    secret_name: str


@dataclass(frozen=True, slots=True)
class Child:
    """An object of ours, as the API server has it."""

    api_version: str
    kind: str
    name: str
    uid: str
    spec_hash: str | None = None
    resource_version: str = ""
    owner_uids: frozenset[str] = frozenset()
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """What is kept of one revision of a model, in a ControllerRevision."""

    name: str
    spec: DesiredRevision
    """What to load, with the digests that its files turned out to have."""
    number: int
    """Rises: the newest was the last to be named, or to be found good."""
    time: str
    """When it was named, or when its outcome was found."""
    outcome: Outcome | None = None
    reason: str = ""
    message: str = ""
    generation: int = 0
    """The spec's, when the outcome was found."""
    held_generation: int | None = None
    """The spec's, when somebody asked to go back to this revision."""
    model: str = ""
    child: Child | None = None
    """The object that keeps it; None before there is one."""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of the pool."""

    name: str
    ordinal: int
    uid: str
    ip: str | None = None
    ready: bool = False
    deleting: bool = False
    holds: frozenset[str] = frozenset()
    """Models that its labels say it holds."""
    internal_port: int | None = None
    restarts: int = 0
    trouble: str | None = None
    """Why it does not run: a container's waiting reason, or `Unschedulable`."""
    trouble_message: str = ""
    age_seconds: float = 0.0

    @property
    def is_up(self) -> bool:
        """Whether it takes requests."""
        return self.ready and not self.deleting


@dataclass(frozen=True, slots=True)
class ReportView:
    """The last that was heard of a pod."""

    pod: str
    report: PodReport | None = None
    age_seconds: float | None = None
    """Time since it was heard; None before the first report of this process."""
    awaited_seconds: float = 0.0
    """How long this process has been asking the pod."""

    @property
    def fresh(self) -> PodReport | None:
        """The report, unless it is too old to be believed."""
        if self.age_seconds is None or self.age_seconds > REPORT_LIMIT_SECONDS:
            return None
        return self.report

    @property
    def is_settled(self) -> bool:
        """Whether there is an answer, or has been time enough for one."""
        return self.report is not None or self.awaited_seconds >= FIRST_REPORT_SECONDS


@dataclass(frozen=True, slots=True)
class OnOnePod:
    """What is on one pod, and what was heard of that."""

    pod: PodView | None
    view: ReportView | None

    @property
    def is_up(self) -> bool:
        """Whether its pod takes requests."""
        return self.pod is not None and self.pod.is_up

    @property
    def is_settled(self) -> bool:
        """Whether its pod, if it is up, has reported or has had time to."""
        return not self.is_up or (self.view is not None and self.view.is_settled)


@dataclass(frozen=True, slots=True)
class ProfileView:
    """What the platform's ConfigMap says of a pool."""

    profile: PoolProfile | None
    error: str = ""
    """Why there is no valid profile: absent, or what is wrong with it."""
    exists: bool = False
    """Whether there is an entry at all, valid or not."""
    known: tuple[str, ...] = ()
    """Names of all valid profiles."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """The pool's ConfigMap: what was last asked of the pods, and what else must outlive us."""

    child: Child
    desired: PoolDesired | None = None
    profile: PoolProfile | None = None
    """The last good profile."""
    secret: str = ""
    """Fingerprint of the token Secret as it was last applied; we may write but not read it."""


@dataclass(frozen=True, slots=True)
class PoolNote:
    """What the pool's own reconcile found that its members must tell their users."""

    reason: Reason
    message: str
    models: tuple[str, ...] = ()
    """Members it speaks of; empty for all of them."""

    def concerns(self, model: str) -> bool:
        """Whether a member is meant."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a collection is not accepted."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class PoolObserved:
    """All that a pool's plan depends on."""

    namespace: str
    pool: str
    now: datetime
    config: OperatorConfig
    token: PoolToken
    profile: ProfileView
    members: tuple[ModelDeployment, ...] = ()
    """ModelDeployments that name the pool, those being deleted included."""
    collections: tuple[VectorCollection, ...] = ()
    """VectorCollections that name it, likewise."""
    reindexes: tuple[ReindexJob, ...] = ()
    """ReindexJobs of those collections."""
    volume: bool = False
    """Whether there is a PersistentVolumeClaim for the pool's collections."""
    record: PoolRecord | None = None
    children: tuple[Child, ...] = ()
    pods: tuple[PodView, ...] = ()
    reports: tuple[ReportView, ...] = ()
    revisions: tuple[RevisionRecord, ...] = ()
    """Those of all members."""


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What a pool's reconcile found and left, as its members need it.

    Only the pool's key reads what members share, from one fresh look; were each member to read it
    again, a pool of many would cost the square of their number.
    """

    desired: PoolDesired | None = None
    """The document in effect."""
    profile: PoolProfile | None = None
    """The last good profile."""
    pods: tuple[PodView, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Members whose name or alias an older one has, with what to tell them."""
    collection_refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """Collections that cannot be acted on."""
    rolled_back: frozenset[tuple[str, int]] = frozenset()
    """Collections, with the generation of their spec, whose reindex somebody has undone."""
    note: PoolNote | None = None


@dataclass(frozen=True, slots=True)
class ModelObserved:
    """All that a model's plan depends on."""

    resource: ModelDeployment
    now: datetime
    profile: ProfileView
    pool: PoolFacts = PoolFacts()
    service: Child | None = None
    reports: tuple[ReportView, ...] = ()
    revisions: tuple[RevisionRecord, ...] = ()
    written: datetime | None = None
    """When this process last wrote its status, if it did."""
    taken: tuple[str, ...] = ()
    """Objects we need whose names belong to somebody else, such as `Service chat-model`."""


@dataclass(frozen=True, slots=True)
class CollectionObserved:
    """All that a collection's plan depends on."""

    resource: VectorCollection
    now: datetime
    profile: ProfileView
    pool: PoolFacts = PoolFacts()
    reports: tuple[ReportView, ...] = ()
    written: datetime | None = None
    """When this process last wrote its status, if it did."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """The batch/v1 Job that runs a reindex job's worker."""

    child: Child
    age_seconds: float = 0.0
    is_running: bool = False
    """Whether its pod runs."""
    is_over: bool = False
    """Whether it has ended, well or not."""


@dataclass(frozen=True, slots=True)
class ReindexObserved:
    """All that a reindex job's plan depends on."""

    resource: ReindexJob
    now: datetime
    collection: VectorCollection | None = None
    known: tuple[str, ...] = ()
    """Names of the namespace's collections, where there is none of the wanted one."""
    pool: PoolFacts = PoolFacts()
    secret_name: str = ""
    """Name of the Secret that holds the pool's token."""
    reports: tuple[ReportView, ...] = ()
    worker: WorkerView | None = None
    written: datetime | None = None
    """When this process last wrote its status, if it did."""


def effective_profile(view: ProfileView, last: PoolProfile | None) -> PoolProfile | None:
    """Return the profile in effect: the platform's, or the last good one that the pool ran on."""
    return view.profile if view.profile is not None else last


def profile_in_effect(observed: PoolObserved) -> PoolProfile | None:
    """Return the profile that a pool runs on."""
    record = observed.record
    return effective_profile(observed.profile, record.profile if record is not None else None)
