"""What is kept of a reindex job, in the log's file of its collection."""

from dataclasses import asdict
from typing import Any, Final

from pydantic import Field

from ullage_api.conditions import Reason
from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.memory import Priority
from ullage_api.kinds.reindex_job import DEFAULT_ROLLBACK_SECONDS, ReindexJobSpec
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_settings import CutoverType
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.names import short_hash
from ullage_runtime.core.reindexing.machine import Record, Verified, Wishes
from ullage_runtime.retrieval.log.file import KeptJob

RANKS: Final = {
    Priority.CRITICAL: 0,
    Priority.HIGH: 1,
    Priority.NORMAL: 2,
    Priority.LOW: 3,
    Priority.BATCH: 4,
}


class Failure(KubeModel):
    """Why a job cannot be done."""

    reason: Reason
    message: str


class JobRecord(KubeModel):
    """One job; on the disk before it is acted upon."""

    uid: str
    name: str
    generation: int = 0
    created: float
    is_documented: bool = True
    """Whether the pool's desired document names it; else it was made over REST."""
    spec: ReindexJobSpec
    wishes: dict[str, Any] = Field(default_factory=dict)
    """Fields of the spec as somebody set them over REST, until the spec's next generation."""
    deleted: bool = False

    phase: ReindexPhase = ReindexPhase.PENDING
    since: float = 0.0
    plan: ReindexPlan | None = None
    plan_reason: str = ""
    resumes: ReindexPhase | None = None
    reason: Reason | None = None
    message: str = ""
    started: float | None = None
    finished: float | None = None

    wanted: VectorCollectionSpec | None = None
    """The collection's spec, as it was when the job began."""
    wanted_generation: int = 0
    source: str | None = None
    target: str | None = None
    """Physical collections; one and the same where nothing is copied."""
    epoch: int | None = None
    made: dict[str, Any] = Field(default_factory=dict)
    """What the target's vectors are made with, as a routing names it."""
    before: dict[str, Any] | None = None
    """How the index was built, where it is built anew in place."""
    barrier: int = 0
    """The last mutation that the target gets by being copied; all later ones it is written."""
    copied_tip: int | None = None
    """The last mutation that was accepted when the copy had ended; None until then."""
    total: int = 0
    copied: int = 0
    skipped: int = 0
    rate: float = 0.0
    eta_seconds: int | None = None
    checkpoint_time: float | None = None
    verified_at: float | None = None
    verification: dict[str, Any] = Field(default_factory=dict)
    verified_failures: tuple[str, ...] = ()
    failure: Failure | None = None
    token: int = 0
    """Of the last lease that was given."""
    worker: str = ""

    @property
    def token_width(self) -> int:
        """Numbers of a token's vector in the target; 0 where tokens have none."""
        return int(self.made.get("token_width") or 0)

    @property
    def effective(self) -> ReindexJobSpec:
        """The spec, with what was wished since; of a rate, only what was wished changes."""
        wished = ReindexJobSpec.model_validate({"collection": self.spec.collection, **self.wishes})
        update = {name: getattr(wished, name) for name in wished.model_fields_set}
        if self.spec.rate is not None and wished.rate is not None:
            rate = wished.rate
            given = {name: getattr(rate, name) for name in rate.model_fields_set}
            update["rate"] = self.spec.rate.model_copy(update=given)
        return self.spec.model_copy(update=update)

    @property
    def is_over(self) -> bool:
        """Whether it is finished, well or not."""
        return self.phase.is_over

    @property
    def has_begun(self) -> bool:
        """Whether it has touched anything that it will have to finish or undo."""
        idle = {ReindexPhase.PENDING, ReindexPhase.QUEUED}
        phase = self.resumes if self.phase is ReindexPhase.PAUSED else self.phase
        return phase not in idle and not self.is_over

    @property
    def switches(self) -> bool:
        """Whether another collection takes over."""
        return self.target is not None and self.target != self.source

    @property
    def configuration(self) -> str:
        """What distinguishes this way from source to target."""
        return short_hash([self.uid, self.plan, self.source, self.target, self.barrier, self.made])

    def machine(self) -> Record:
        """Return what decides."""
        return Record(
            self.phase,
            self.since,
            self.plan,
            self.plan_reason,
            self.resumes,
            self.reason,
            self.message,
        )

    def entered(self, record: Record, now: float) -> "JobRecord":
        """Return the record after a step."""
        update: dict[str, Any] = asdict(record)
        if self.started is None and record.phase is ReindexPhase.PREPARING:
            update["started"] = now
        if record.phase.is_over:
            update["finished"] = now
        return self.model_copy(update=update)

    def wished(self) -> Wishes:
        """Return what is asked for now."""
        spec = self.effective
        rollback = spec.rollback_seconds
        deadline = spec.deadline_seconds
        return Wishes(
            suspend=bool(spec.suspend),
            cancel=bool(spec.cancel),
            deleted=self.deleted,
            needs_approval=spec.cutover is CutoverType.MANUAL,
            approved=bool(spec.approve),
            rollback=bool(spec.rollback),
            rollback_seconds=DEFAULT_ROLLBACK_SECONDS if rollback is None else rollback,
            deadline=None if deadline is None else self.created + deadline,
        )

    @property
    def verified(self) -> Verified | None:
        """What the last verification came to."""
        if self.verified_at is None:
            return None
        return Verified(self.verified_at, self.verified_failures)

    def kept(self) -> KeptJob:
        """Return the record as the log's file keeps it."""
        return KeptJob(self.uid, self.name, self.model_dump(mode="json", by_alias=True))
