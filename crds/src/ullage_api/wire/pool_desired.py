"""PoolDesired: what a pool's pods should serve; written by the operator, or by `ullage up`."""

from typing import Literal

from ullage_api.conditions import Reason
from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.rollout import RolloutSettings
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.names import API_VERSION, revision_name, short_hash
from ullage_api.profile import RuntimeSettings


class DesiredAdapter(KubeModel):
    """A LoRA adapter of a revision: a file, and how strongly it is applied."""

    name: str
    uri: str
    sha256: str | None = None
    scale: float = 1.0


class DesiredRevision(KubeModel):
    """What to load: a file, its adapters, and the settings it is loaded with."""

    uri: str
    sha256: str | None = None
    adapters: tuple[DesiredAdapter, ...] = ()
    engine: EngineSettings = EngineSettings()
    task: Task | None = None
    """Embedding or Rerank; None for what generates, which every such task loads alike."""

    @property
    def settings(self) -> dict[str, object]:
        """How the file is loaded: what distinguishes two revisions of one file."""
        task = {} if self.task is None else {"task": self.task.value}
        return self.engine.to_wire() | task

    @property
    def name(self) -> str | None:
        """Its name; None while a digest is not known."""
        digests = [adapter.sha256 for adapter in self.adapters]
        if self.sha256 is None or None in digests:
            return None
        identities = [
            {"name": adapter.name, "sha256": adapter.sha256, "scale": adapter.scale}
            for adapter in self.adapters
        ]
        return revision_name(self.sha256, self.settings, identities)


class DesiredFailure(KubeModel):
    """Why a target is not to be tried: some pod has, and nothing but a new spec can mend it."""

    reason: Reason
    message: str


class DesiredModel(KubeModel):
    """One model of the pool."""

    name: str
    uid: str = ""
    generation: int = 0
    task: Task
    aliases: tuple[str, ...] = ()
    ordinals: tuple[int, ...] = ()
    """Pods that should serve it; none when it is suspended, has no replicas or found no place."""
    waiting: tuple[int, ...] = ()
    """Those of them whose turn to take the target has not come: what they have goes on answering,
    or else `last_good` does."""
    suspended: bool = False
    """Whether requests are to be answered 503 `model_suspended`."""
    target: DesiredRevision
    last_good: DesiredRevision | None = None
    """What answered last, by its digests: for a pod that has had no revision and cannot load the
    target."""
    failure: DesiredFailure | None = None
    """Why the target is not to be tried; absent while it may be."""
    residency: ResidencySettings = ResidencySettings()
    rollout: RolloutSettings = RolloutSettings()
    serving: ServingLimits = ServingLimits()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may ask for, the model's own first."""
        return (self.name, *self.aliases)


class DesiredCollection(KubeModel):
    """One collection of the pool."""

    name: str
    uid: str = ""
    generation: int = 0
    spec: VectorCollectionSpec
    dropped: bool = False
    """Whether its data is to be removed: it is not served any more, and never again."""


class DesiredReindex(KubeModel):
    """One reindex job of a collection of the pool.

    A job that is not named any more and is not over is cancelled, as if it said `deleted`.
    """

    name: str
    uid: str = ""
    generation: int = 0
    created: str | None = None
    """When the resource was created, in UTC: of equal priority, the oldest goes first."""
    spec: ReindexJobSpec
    deleted: bool = False
    """Whether the resource is being deleted: the job is cancelled, and the resource then goes."""


class Peer(KubeModel):
    """One pod of the pool, as the others reach it."""

    ordinal: int
    url: str


class PoolDesired(KubeModel):
    """All that a pool's pods are asked to do.

    `sequence` orders documents: a pod keeps the highest it has accepted and ignores older ones.
    `hash` is that of everything but the sequence, so equal content is recognised.
    """

    api_version: Literal["ullage.dev/v1alpha1"] = API_VERSION
    kind: Literal["PoolDesired"] = "PoolDesired"
    sequence: int = 0
    hash: str = ""
    namespace: str
    pool: str
    settings: RuntimeSettings = RuntimeSettings()
    models: tuple[DesiredModel, ...] = ()
    collections: tuple[DesiredCollection, ...] = ()
    reindexes: tuple[DesiredReindex, ...] = ()
    peers: tuple[Peer, ...] = ()

    def content_hash(self) -> str:
        """Return the hash of everything but `sequence` and `hash`."""
        return short_hash(self.to_wire() | {"sequence": 0, "hash": ""}, length=16)

    def sealed(self, sequence: int) -> "PoolDesired":
        """Return this document with its sequence and content hash set."""
        return self.model_copy(update={"sequence": sequence, "hash": self.content_hash()})
