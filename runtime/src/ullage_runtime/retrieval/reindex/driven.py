"""A job as its worker drives it: the lease, pages, checkpoints and the judgement."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_runtime.core.errors import (
    CollectionUnavailable,
    DiskFull,
    LeaseHeld,
    ReindexConflict,
    StaleLease,
)
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.making import Making, Remaker
from ullage_runtime.retrieval.reindex import gates
from ullage_runtime.retrieval.reindex.job import Job
from ullage_runtime.retrieval.reindex.pages import copied
from ullage_runtime.retrieval.reindex.record import Failure, JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.reindex.wire import (
    LEASE_SECONDS,
    CheckpointRequest,
    FailureRequest,
    Hashes,
    Lease,
    LeaseRequest,
    Load,
    PageRequest,
    PageResult,
    Probes,
    ProbesRequest,
    RangeProgress,
    Schema,
    VerificationRequest,
    Versions,
)
from ullage_runtime.retrieval.stores.port import PointId

log = structlog.stdlib.get_logger(__name__)

FULL_DISKS: Final = 5
"""Pages in a row that may find the target's disk full before the job is given up."""


@dataclass(slots=True)
class Driven:
    """One job, and whoever drives it."""

    job: Job
    remaker: Remaker
    load_of: Callable[[Scene], Load]
    """Returns how busy the pod is with what matters more."""
    clock: Callable[[], float]
    """A monotonic clock in seconds: leases do not care about the time of day."""
    _until: float = 0.0
    _full: int = 0

    @property
    def _record(self) -> JobRecord:
        return self.job.record

    async def lease(self, asked: LeaseRequest) -> Lease:
        """Give, renew or take back the right to drive; raises LeaseHeld or StaleLease."""
        if self.job.scene is None:
            # What was kept of the job is not known yet, the last lease among it.
            raise CollectionUnavailable(
                f"collection {self._record.spec.collection!r} is being opened", retry_after=1.0
            )
        record, now = self._record, self.clock()
        if asked.token is not None:
            self._check(asked.token, asked.worker)
        elif record.worker not in {"", asked.worker} and now < self._until:
            raise LeaseHeld(
                f"worker {record.worker!r} drives job {record.name!r}",
                retry_after=self._until - now,
            )
        else:
            await self.job.change({"token": record.token + 1, "worker": asked.worker})
            log.info("lease given", job=record.name, worker=asked.worker, token=record.token + 1)
        self._until = self.clock() + (0.0 if asked.ends else LEASE_SECONDS)
        return await self._lease()

    def _check(self, token: int, worker: str | None = None) -> None:
        """Refuse whoever was overtaken."""
        record = self._record
        if token != record.token or worker not in {None, record.worker}:
            raise StaleLease(
                f"lease {token} of job {record.name!r} was taken over by {record.worker!r} with "
                f"lease {record.token}: this worker is to end"
            )

    async def _lease(self) -> Lease:
        record, scene = self._record, self.job.scene
        spec = record.effective
        rate, verify = spec.rate, spec.verify
        keeps = False
        if scene is not None and record.switches and record.source in scene.routing.named:
            source = scene.routing.making_of(record.source or "")
            keeps = source.embeds_like(Making.of(record.made))
        return Lease(
            token=record.token,
            uid=record.uid,
            collection=spec.collection,
            phase=record.phase,
            plan=record.plan,
            source=record.source,
            target=record.target,
            total=record.total,
            points_per_second=rate.points_per_second if rate else None,
            max_in_flight=rate.max_in_flight if rate else None,
            sample_size=verify.sample_size if verify else None,
            min_recall_percent=verify.min_recall_percent if verify else None,
            max_failed=(verify.max_failed if verify else None) or 0,
            failed=self.job.failed,
            keeps_vectors=keeps,
            configuration=record.configuration,
            checkpoint=await self._checkpoint(scene),
            load=Load() if scene is None else self.load_of(scene),
        )

    async def _checkpoint(self, scene: Scene | None) -> tuple[RangeProgress, ...]:
        """Return what was kept last, unless it is of another configuration."""
        if scene is None:
            return ()
        body = await scene.changes.checkpoint(self._record.uid)
        if body is None or body.get("configuration") != self._record.configuration:
            return ()
        return tuple(RangeProgress.model_validate(each) for each in body["ranges"])

    async def page(self, asked: PageRequest) -> PageResult:
        """Copy a page."""
        self._check(asked.token)
        scene = self.job.running(Phase.COPYING)
        try:
            with told(scene.name):
                result = await copied(scene, self._record, self.remaker, asked)
        except DiskFull as error:
            await self._note_full(error)
            raise
        self._full = 0
        return result.model_copy(update={"load": self.load_of(scene)})

    async def _note_full(self, error: DiskFull) -> None:
        self._full += 1
        if self._full >= FULL_DISKS and self._record.failure is None:
            failure = Failure(reason=Reason.NO_ROOM, message=str(error))
            await self.job.change({"failure": failure})

    async def keep(self, asked: CheckpointRequest) -> None:
        """Keep how far the copy has come; when all of it is done, that ends the copying."""
        self._check(asked.token)
        scene = self.job.running(Phase.COPYING)
        if asked.configuration != self._record.configuration:
            raise ReindexConflict(
                "the checkpoint is of another configuration of the job; take the lease again"
            )
        body = asked.model_dump(mode="json", by_alias=True, exclude={"token"})
        await scene.changes.keep_checkpoint(self._record.uid, body)
        update: dict[str, Any] = {
            "copied": sum(each.copied for each in asked.ranges),
            "skipped": sum(each.skipped for each in asked.ranges),
            "rate": asked.rate,
            "eta_seconds": asked.eta_seconds,
            "checkpoint_time": scene.now(),
        }
        if asked.ranges and all(each.is_done for each in asked.ranges):
            update |= {"copied_tip": scene.changes.tip, "eta_seconds": 0}
        await self.job.change(update)

    async def judge(self, asked: VerificationRequest) -> None:
        """Keep what the verification came to."""
        self._check(asked.token)
        scene = self.job.running(Phase.VERIFYING)
        failures = () if asked.passed else (asked.message or "the worker found it wanting",)
        await self.job.change(
            {
                "verified_at": scene.now(),
                "verified_failures": failures,
                "verification": {
                    **asked.results,
                    "passed": asked.passed,
                    "message": asked.message,
                },
            }
        )

    async def fail(self, asked: FailureRequest) -> None:
        """Give the job up: no repetition would help."""
        self._check(asked.token)
        failure = Failure(reason=Reason.TOO_MANY_FAILURES, message=asked.message)
        await self.job.change({"failure": failure})

    def _begun(self) -> Scene:
        return self.job.running(*(each for each in Phase if not each.is_over))

    async def versions(self, physical: str, after: PointId | None, limit: int) -> Versions:
        """Return a page of live points with their versions."""
        scene = self._begun()
        with told(scene.name):
            return await gates.versions(scene, self._record, physical, after, limit)

    async def versions_of(self, physical: str, ids: list[PointId]) -> Versions:
        """Return versions of certain points, once both sides have all that is accepted."""
        scene = self._begun()
        with told(scene.name):
            return await gates.versions_of(scene, self._record, physical, ids)

    async def hashes(self, physical: str, ids: list[PointId]) -> Hashes:
        """Return what distinguishes the contents of some points."""
        scene = self._begun()
        with told(scene.name):
            return await gates.hashes(scene, self._record, physical, ids)

    async def probes(self, asked: ProbesRequest) -> Probes:
        """Search the target for some of its own points."""
        self._check(asked.token)
        scene = self._begun()
        with told(scene.name):
            return await gates.probes(scene, self._record, asked.samples)

    async def schema(self) -> Schema:
        """Return how the target is laid out and what it is to be."""
        scene = self._begun()
        with told(scene.name):
            return await gates.schema(scene, self._record)
