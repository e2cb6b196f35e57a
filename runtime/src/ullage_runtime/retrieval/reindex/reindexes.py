"""The reindex jobs of this pod, as the desired document or a client wants them."""

import asyncio
import pathlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from pydantic import ValidationError

from ullage_api.conditions import Reason
from ullage_api.kinds.memory import Priority
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.wire.pod_report import ReportedReindex
from ullage_api.wire.pool_desired import DesiredReindex
from ullage_runtime.core.errors import (
    CollectionUnavailable,
    InvalidRequest,
    ReindexConflict,
    ReindexNotFound,
)
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.embedding import Embedder
from ullage_runtime.retrieval.failures import RETRY_SECONDS
from ullage_runtime.retrieval.held import Held
from ullage_runtime.retrieval.making import Remaker
from ullage_runtime.retrieval.reindex.driven import Driven
from ullage_runtime.retrieval.reindex.job import Job
from ullage_runtime.retrieval.reindex.observing import Turn
from ullage_runtime.retrieval.reindex.record import RANKS, JobRecord
from ullage_runtime.retrieval.reindex.reporting import reported
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.reindex.wire import Load

log = structlog.stdlib.get_logger(__name__)

AGEING_SECONDS: Final = 600.0
"""A job that waits so long moves up by one class of priority."""
KEPT_OVER: Final = 20
"""Finished jobs made over REST that are remembered."""
_AFTER_SWITCH: Final = frozenset({ReindexPhase.SOAKING, ReindexPhase.CLEANING})


class Reindexes:
    """Every reindex job of one pod."""

    def __init__(
        self,
        collections: Collections,
        embedder: Embedder,
        remaker: Remaker,
        folder: pathlib.Path,
        load_of: Callable[[Scene], Load],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._collections = collections
        self._embedder = embedder
        self._remaker = remaker
        self._folder = folder
        self._load_of = load_of
        self._now = now
        self._jobs: dict[str, Driven] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._taken_up: dict[str, Held] = {}
        self._documented: Mapping[str, DesiredReindex] | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when what `reported` returns may have changed."""
        self.want_worker: Callable[[str], None] = lambda _: None
        """Called with a job's name while it needs a worker."""
        collections.on_open = self.take_up

    def reported(self) -> tuple[ReportedReindex, ...]:
        """Return the entry of every job in the pod's report."""
        return tuple(reported(self._jobs[uid].job) for uid in self._in_order())

    def _in_order(self) -> list[str]:
        return sorted(self._jobs, key=lambda uid: (self._jobs[uid].job.record.name, uid))

    def find(self, name: str) -> Driven:
        """Return a job by its name, the one that is not over first; raises ReindexNotFound."""
        named = [each for each in self._jobs.values() if each.job.record.name == name]
        if not named:
            known = ", ".join(sorted({e.job.record.name for e in self._jobs.values()})) or "none"
            raise ReindexNotFound(f"there is no reindex job {name!r}; there are: {known}")
        return max(named, key=lambda e: (not e.job.record.is_over, e.job.record.created))

    async def apply(self, wanted: Sequence[DesiredReindex]) -> None:
        """Begin what is wanted, tell those that are there of changes, and cancel what is gone."""
        self._documented = {_uid(each): each for each in wanted}
        for uid, desired in self._documented.items():
            driven = self._jobs.get(uid)
            if driven is None:
                self._begin(_new(uid, desired, self._now()))
            else:
                await self._told(driven.job, desired)
        for uid, driven in list(self._jobs.items()):
            if driven.job.record.is_documented and uid not in self._documented:
                await self._undocumented(driven.job)
        self.on_change()

    async def _told(self, job: Job, desired: DesiredReindex) -> None:
        record = job.record
        update: dict[str, Any] = {}
        if desired.generation != record.generation or desired.spec != record.spec:
            # What was wished over REST holds until the spec says something else.
            update = {"spec": desired.spec, "generation": desired.generation, "wishes": {}}
        if desired.deleted != record.deleted:
            update["deleted"] = desired.deleted
        if update:
            await job.change(update)

    async def _undocumented(self, job: Job) -> None:
        """Cancel a job whose resource is gone; forget one that is over."""
        if not job.record.is_over:
            if not job.record.deleted:
                await job.change({"deleted": True})
            return
        await self._forget(job)

    async def _forget(self, job: Job) -> None:
        task = self._tasks.pop(job.record.uid, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._jobs.pop(job.record.uid, None)
        scene = job.scene
        if scene is not None:
            await scene.changes.forget_job(job.record.uid)
        self.on_change()

    async def take_up(self, name: str) -> None:
        """Go on with the jobs of a collection that has been opened."""
        held = self._held(name)
        scene = None if held is None else self._whole(held)
        if scene is None:
            return
        for kept in await scene.changes.jobs():
            try:
                record = JobRecord.model_validate(kept.body)
            except ValidationError as error:
                log.error(  # noqa: TRY400 - the words say it all
                    "a reindex job's record cannot be read", job=kept.name, error=str(error)
                )
                continue
            await self._resume(record)
        # Only from here on may jobs touch it: what was kept of them is known.
        self._taken_up[name] = scene.held
        for driven in self._jobs.values():
            driven.job.poke()
        self.on_change()

    async def _resume(self, record: JobRecord) -> None:
        driven = self._jobs.get(record.uid)
        if driven is None:
            self._begin(record)
            driven = self._jobs[record.uid]
        elif not driven.job.record.has_begun:
            # What the document said before the collection was open is newer than what was kept.
            fresh = driven.job.record
            driven.job.record = record.model_copy(
                update={
                    "spec": fresh.spec,
                    "generation": fresh.generation,
                    "deleted": fresh.deleted,
                    "wishes": record.wishes if fresh.generation == record.generation else {},
                }
            )
            # The fresh one may have been over already: cancelled before there was anything to undo.
            if self._tasks[record.uid].done():
                self._tasks[record.uid] = asyncio.create_task(driven.job.run())
        documented = self._documented
        if record.is_documented and documented is not None and record.uid not in documented:
            await self._undocumented(driven.job)

    def _begin(self, record: JobRecord) -> None:
        job = Job(
            record=record,
            scene_of=self._scene,
            problem_of=self._problem,
            turn_of=self._turn,
            on_change=self._changed,
            want_worker=lambda job: self.want_worker(job.record.name),
            now=self._now,
        )
        self._jobs[record.uid] = Driven(job, self._remaker, self._load_of, time.monotonic)
        self._tasks[record.uid] = asyncio.create_task(job.run())

    def _changed(self) -> None:
        self.on_change()

    async def close(self) -> None:
        """End; the next process goes on with what is not over."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    def _held(self, name: str) -> Held | None:
        return self._collections.held(name) if name in self._collections.names() else None

    def _scene(self, name: str) -> Scene | None:
        held = self._held(name)
        if held is None or self._taken_up.get(name) is not held:
            return None
        return self._whole(held)

    def _whole(self, held: Held) -> Scene | None:
        if held.collection is None or held.ingestion is None:
            return None
        return Scene(held, held.collection, held.ingestion, self._embedder, self._folder, self._now)

    def _problem(self, name: str) -> tuple[Reason, str]:
        held = self._held(name)
        if held is None:
            known = ", ".join(self._collections.names()) or "none"
            return (
                Reason.UNKNOWN_COLLECTION,
                f"there is no collection {name!r} in this pool; there are: {known}",
            )
        return Reason.OPENING, f"collection {name!r} is not ready: {held.problem}"

    def _turn(self, job: Job) -> Turn:
        """Return whether a job may begin: one per collection, and one per store at a time."""
        record = job.record
        others = [e.job.record for e in self._jobs.values() if e.job is not job]
        for other in others:
            same = other.spec.collection == record.spec.collection
            works = other.phase not in _AFTER_SWITCH and other.phase is not ReindexPhase.PAUSED
            if other.has_begun and (same or (works and self._share_store(other, record))):
                return Turn(behind=f"job {other.name!r} of collection {other.spec.collection!r}")
        first = self._rank(record)
        for other in others:
            if (
                other.phase is ReindexPhase.QUEUED
                and self._share_store(other, record)
                and self._rank(other) < first
            ):
                return Turn(behind=f"job {other.name!r}, which goes first")
        return Turn(is_it=True)

    def _share_store(self, one: JobRecord, other: JobRecord) -> bool:
        return self._store_of(one) == self._store_of(other)

    def _store_of(self, record: JobRecord) -> str:
        held = self._held(record.spec.collection)
        store = None if held is None else held.desired.spec.store
        return (store.url or "") if store is not None else ""

    def _rank(self, record: JobRecord) -> tuple[float, float, str]:
        """Return a job's place: by priority, which rises while it waits, then by age."""
        waited = (self._now() - record.created) / AGEING_SECONDS
        rank = RANKS[record.effective.priority or Priority.NORMAL]
        return (rank - max(0.0, waited), record.created, record.uid)

    async def create(self, name: str, spec: ReindexJobSpec) -> Job:
        """Begin a job of a client.

        Raises ReindexConflict, CollectionNotFound or CollectionUnavailable.
        """
        held = self._collections.held(spec.collection)
        if self._scene(spec.collection) is None:
            raise CollectionUnavailable(
                f"collection {spec.collection!r} is not ready: {held.problem}",
                retry_after=RETRY_SECONDS,
            )
        for driven in list(self._jobs.values()):
            record = driven.job.record
            if record.name != name:
                continue
            if record.is_documented or not record.is_over:
                raise ReindexConflict(
                    f"there is a reindex job {name!r} already; take another name", param="name"
                )
            await self._forget(driven.job)
        record = JobRecord(
            uid=f"rest-{uuid.uuid4().hex}",
            name=name,
            created=self._now(),
            is_documented=False,
            spec=spec,
        )
        self._begin(record)
        job = self._jobs[record.uid].job
        # On the disk before the client is told.
        await job.change({})
        await self._forget_oldest()
        return job

    async def _forget_oldest(self) -> None:
        over = [
            e.job
            for e in self._jobs.values()
            if e.job.record.is_over and not e.job.record.is_documented
        ]
        for job in sorted(over, key=lambda j: j.record.created)[:-KEPT_OVER]:
            await self._forget(job)

    async def wish(self, name: str, wishes: Mapping[str, Any]) -> Job:
        """Set fields of a job's spec until the document says otherwise."""
        job = self.find(name).job
        if job.record.is_over:
            raise ReindexConflict(
                f"reindex job {name!r} is over ({job.record.phase.value}); start another one"
            )
        if wishes.get("rollback") and job.record.phase not in {
            ReindexPhase.SOAKING,
            ReindexPhase.ROLLING_BACK,
        }:
            raise ReindexConflict(
                f"reindex job {name!r} is {job.record.phase.value}: it can be rolled back while it "
                "is Soaking; before the switch, cancel it"
            )
        merged = {**job.record.wishes, **wishes}
        if wishes.get("rate"):
            merged["rate"] = {**(job.record.wishes.get("rate") or {}), **wishes["rate"]}
        try:
            ReindexJobSpec.model_validate({"collection": job.record.spec.collection, **merged})
        except ValidationError as error:
            raise InvalidRequest(str(error.errors()[0]["msg"])) from error
        await job.change({"wishes": merged})
        return job

    async def delete(self, name: str) -> None:
        """Forget a finished job of a client."""
        job = self.find(name).job
        if job.record.is_documented:
            raise ReindexConflict(f"reindex job {name!r} is a resource; delete that")
        if not job.record.is_over:
            raise ReindexConflict(f"reindex job {name!r} is not over; cancel it first")
        await self._forget(job)


def _uid(desired: DesiredReindex) -> str:
    return desired.uid or f"manifest-{desired.name}"


def _new(uid: str, desired: DesiredReindex, now: float) -> JobRecord:
    created = now
    if desired.created is not None:
        created = datetime.fromisoformat(desired.created).timestamp()
    return JobRecord(
        uid=uid,
        name=desired.name,
        generation=desired.generation,
        created=created,
        spec=desired.spec,
        deleted=desired.deleted,
    )
