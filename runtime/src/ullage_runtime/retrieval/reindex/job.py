"""One reindex job of this pod: kept, observed, decided and acted upon until it is over."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_runtime.core.backoff import exponential
from ullage_runtime.core.errors import ReindexNotRunning, ServingError
from ullage_runtime.core.reindexing.machine import Action, Do, Enter, Facts, Wait, next_step
from ullage_runtime.core.reindexing.planning import Refused
from ullage_runtime.retrieval.reindex import acting
from ullage_runtime.retrieval.reindex.observing import Observer, Turn
from ullage_runtime.retrieval.reindex.record import Failure, JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.stores.port import StoreError, StoreRefused

log = structlog.stdlib.get_logger(__name__)

ACTIVE_SECONDS: Final = 0.2
"""How often a job that does something is looked at."""
IDLE_SECONDS: Final = 1.0
FIRST_PAUSE: Final = 0.5
PAUSE_LIMIT: Final = 15.0
REFUSALS: Final = 5
"""How often a store may refuse the same before the job is given up."""


@dataclass(slots=True)
class Job:
    """A job as long as this process knows of it."""

    record: JobRecord
    scene_of: Callable[[str], Scene | None]
    """Returns a collection that is open; None while it is not."""
    problem_of: Callable[[str], tuple[Reason, str]]
    """Returns why a collection is not open."""
    turn_of: Callable[["Job"], Turn]
    on_change: Callable[[], None]
    want_worker: Callable[["Job"], None]
    """Sees to it that a worker drives the job."""
    now: Callable[[], float]
    waiting: tuple[Reason, str] = (Reason.PENDING, "")
    """Why it is not going on."""
    failed: int = 0
    caught_up: int = 0
    observer: Observer = field(default_factory=Observer)
    _poke: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the record is changed: the worker's word comes at any time."""
    _known: object = None
    """The collection whose both sides are known."""
    _failures: int = 0
    _refusals: int = 0

    @property
    def scene(self) -> Scene | None:
        """Its collection, while that is open."""
        return self.scene_of(self.record.spec.collection)

    def poke(self) -> None:
        """Have it looked at now."""
        self._poke.set()

    async def change(self, update: Mapping[str, Any]) -> None:
        """Change fields of the record; it is on the disk when this returns."""
        async with self._turn:
            await self._keep(self.record.model_copy(update=dict(update)))
        self.poke()

    async def run(self) -> None:
        """Live until it is over, or cancelled; what happened is on the disk."""
        # It outlives the request that began it, whose id is none of its.
        structlog.contextvars.clear_contextvars()
        while not self.record.is_over:
            self._poke.clear()
            pause = await self._tried()
            try:
                async with asyncio.timeout(pause):
                    await self._poke.wait()
            except TimeoutError:
                pass  # nothing has changed that anybody told of

    async def _tried(self) -> float:
        """Do the next step; return for how long there is nothing to do."""
        try:
            pause = await self._step()
        except (StoreError, ServingError, sqlite3.Error, OSError) as error:
            return await self._failed(error)
        except Exception as error:
            log.exception("a reindex job met what nobody expected", job=self.record.name)
            return await self._failed(error)
        self._failures = 0
        return pause

    async def _failed(self, error: Exception) -> float:
        self._failures += 1
        pause = exponential(self._failures, FIRST_PAUSE, PAUSE_LIMIT)
        log.warning(
            "a reindex job cannot go on",
            job=self.record.name,
            phase=self.record.phase.value,
            error=str(error),
            again_in=pause,
        )
        self._wait(Reason.STORE_UNAVAILABLE, str(error))
        self._refusals = self._refusals + 1 if isinstance(error, StoreRefused) else 0
        if self._refusals >= REFUSALS and self.record.failure is None:
            failure = Failure(reason=Reason.STORE_UNAVAILABLE, message=str(error))
            await self.change({"failure": failure})
        return pause

    async def _step(self) -> float:
        async with self._turn:
            return await self._stepped()

    async def _stepped(self) -> float:
        record, scene = self.record, self.scene
        if scene is not None and self._known is not scene.collection:
            await acting.add_views(scene, record)
            self._known = scene.collection
        facts = await self._facts(scene)
        if facts is None:
            return IDLE_SECONDS
        now = self.now()
        match next_step(record.machine(), record.wished(), facts, now):
            case Enter(entered):
                await self._keep(record.entered(entered, now))
                log.info(
                    "reindex",
                    job=record.name,
                    collection=record.spec.collection,
                    phase=entered.phase.value,
                    plan=entered.plan.value if entered.plan else None,
                    message=entered.message,
                )
                self.waiting = (entered.reason or Reason.REINDEXING, entered.message)
                return 0.0
            case Do(action) if scene is not None:
                self._wait(Reason.REINDEXING, "")
                await self._act(scene, action)
                return ACTIVE_SECONDS
            case Wait(reason, message, until):
                self._wait(reason, message)
                left = IDLE_SECONDS if until is None else max(0.0, until - now)
                return min(left, IDLE_SECONDS)
            case Do():
                return IDLE_SECONDS  # its collection is being opened

    async def _facts(self, scene: Scene | None) -> Facts | None:
        """Return what is so; None while nobody can tell."""
        if scene is not None:
            target = self.record.target
            writer = None if target is None else scene.changes.writer(target)
            if writer is not None:
                self.failed = writer.failed
                self.caught_up = max(0, writer.applied - self.record.barrier)
            return await self.observer.facts(scene, self.record, self.turn_of(self))
        reason, message = self.problem_of(self.record.spec.collection)
        if self.record.has_begun:
            self._wait(reason, message)
            return None
        return Facts(outlook=Refused(reason, message, is_final=False))

    def _wait(self, reason: Reason, message: str) -> None:
        if self.waiting != (reason, message):
            self.waiting = (reason, message)
            self.on_change()

    async def _keep(self, record: JobRecord) -> None:
        scene = self.scene
        if scene is not None:
            await scene.changes.keep_job(record.kept())
        self.record = record
        self.on_change()

    async def _act(self, scene: Scene, action: Action) -> None:
        if action in _PLAIN:
            await _PLAIN[action](scene, self.record)
            self.on_change()
        elif action is Action.PREPARE:
            if self.record.target is None:
                await self._keep(await acting.begun(scene, self.record))
            await acting.prepare(scene, self.record)
        elif action is Action.DUAL_WRITE:
            self.record = await acting.dual_write(scene, self.record)
            self.on_change()
        elif action is Action.COPY and self.record.plan is ReindexPlan.RECHUNK:
            await scene.ingestion.cut_again()
            left = await scene.ingestion.cut_otherwise()
            copied = max(0, self.record.total - left)
            self.record = self.record.model_copy(update={"copied": copied})
        elif action is Action.BUILD:
            if not self.observer.build_asked:
                await acting.build(scene, self.record)
                self.observer.build_asked = True
        else:
            self.want_worker(self)

    def running(self, *phases: Phase) -> Scene:
        """Return the collection while the job is in one of some phases; else ReindexNotRunning."""
        scene = self.scene
        if scene is None or self.record.phase not in phases:
            raise ReindexNotRunning(
                f"job {self.record.name!r} is {self.record.phase.value}; this is for "
                f"{' or '.join(each.value for each in phases)}"
            )
        return scene


_PLAIN: Final[Mapping[Action, Callable[[Scene, JobRecord], Awaitable[object]]]] = {
    Action.SWITCH: acting.switch,
    Action.SWITCH_BACK: acting.switch_back,
    Action.POINT_ALIAS: lambda scene, _: acting.point_alias(scene),
    Action.STOP_WRITING: acting.stop_writing,
    Action.REMOVE: acting.remove,
}
