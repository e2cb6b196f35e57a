"""A collection's mutations: accepted in one order, and brought to every index that wants them."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import structlog

from ullage_runtime.core.backoff import exponential
from ullage_runtime.retrieval.log.file import LogFile, Routing
from ullage_runtime.retrieval.log.records import Record, tombstone, with_payload
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    Filter,
    Payload,
    Point,
    PointId,
    Store,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
)

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

AT_ONCE: Final = 4
"""Mutations brought to one index at the same time: their order does not matter."""
FIRST_RETRY_SECONDS: Final = 0.05
RETRY_LIMIT_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 30.0
"""Longest that a change waits for those before it, when it is to be what it comes to."""
KEPT_SECONDS: Final = 3600.0
"""How long applied mutations and tombstones are kept: longer than any request can be on its way."""
FORGET_SECONDS: Final = 60.0
PAGE: Final = 256
"""Points of one mutation that a filter has been resolved to."""

LIVE: Final[Filter] = {"must_not": [{"key": DELETED, "match": {"value": True}}]}
"""All but tombstones."""


def live(where: Filter | None) -> Filter:
    """Return a filter's findings without tombstones."""
    return {**LIVE, "must": [where]} if where else LIVE


class NotApplied(Exception):  # noqa: N818 - named after what is so
    """A mutation was accepted, and an index will not have it."""


class ChangeLog:
    """The log of one collection and the writers that apply it.

    Whoever makes it starts and closes it. A mutation is accepted once it is on the disk; `wait`
    returns when every index that is written has it.
    """

    def __init__(
        self, file: LogFile, store: Store, *, now: Callable[[], float] = time.time
    ) -> None:
        self._file = file
        self._store = store
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="change-log")
        self._order = asyncio.Lock()
        self._moved = asyncio.Condition()
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._applied: dict[str, int] = {}
        self._refused: dict[str, dict[int, str]] = {}
        self._tip = 0
        self._routing: Routing | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.last_failure: str | None = None
        """Why the store does not take what is to be applied; None while it does."""

    @property
    def routing(self) -> Routing:
        """Where reads and writes go."""
        if self._routing is None:
            raise RuntimeError("the log has not been started")
        return self._routing

    @property
    def tip(self) -> int:
        """The last mutation that is known to be accepted."""
        return self._tip

    @property
    def applied(self) -> int:
        """The last mutation that every index has, with all before it."""
        return min(self._applied.values(), default=0)

    @property
    def behind(self) -> int:
        """How many mutations the slowest index has yet to see."""
        return self._tip - min(self._applied.values(), default=self._tip)

    async def open(self) -> Routing | None:
        """Read the file and return where reads and writes went last; None for a new one."""
        self._tip = await self._run(self._file.tip)
        return await self._run(self._file.routing)

    async def start(self, routing: Routing) -> None:
        """Read and write as a routing says, from now on."""
        if await self._run(self._file.routing) != routing:
            await self._run(partial(self._file.route, routing))
        self._routing = routing
        for target in routing.write:
            self._applied[target] = await self._run(partial(self._file.applied, target))
            self._refused[target] = await self._run(partial(self._file.refused, target))
            self._writers[target] = asyncio.create_task(self._write(target))
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """End the writers; what they have not applied they apply next time."""
        tasks = [*self._writers.values(), *filter(None, [self._sweeper])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    async def upsert(self, points: Sequence[Point]) -> int:
        """Accept points as they are to be and return the mutation's version."""
        async with self._order:
            return await self._append(points)

    async def delete(self, ids: Sequence[PointId]) -> int:
        """Accept that points are to be no more."""
        return await self.upsert([tombstone(each) for each in ids])

    async def set_payload(
        self, ids: Sequence[PointId], changes: Payload, *, replace: bool = False
    ) -> tuple[int, int]:
        """Accept a change of some points' payloads; return the version, and how many there are.

        It is accepted as what it comes to, for which everything before it must be applied.
        """
        async with self._order:
            await self._settle()
            found = await self._store.retrieve(self.routing.read, ids, vectors=True)
            return await self._change(found, changes, replace=replace)

    async def set_payload_where(
        self, where: Filter, changes: Payload, *, replace: bool = False
    ) -> tuple[int, int]:
        """Accept a change of the payloads of all points that a filter finds now."""
        total = 0
        async with self._order:
            await self._settle()
            for ids in await self._ids(where):
                found = await self._store.retrieve(self.routing.read, ids, vectors=True)
                _, count = await self._change(found, changes, replace=replace)
                total += count
            return self._tip, total

    async def delete_where(self, where: Filter) -> tuple[int, int]:
        """Accept that all points are to be no more that a filter finds now."""
        total = 0
        async with self._order:
            await self._settle()
            for ids in await self._ids(where):
                await self._append([tombstone(each) for each in ids])
                total += len(ids)
            return self._tip, total

    async def wait(self, version: int, seconds: float | None = None) -> None:
        """Wait until every index has a mutation; raises StoreTimeout or NotApplied."""
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self._is_applied(version))
        except TimeoutError:
            raise StoreTimeout(
                f"the change is accepted, but not applied within {seconds:g} s{self._why()}"
            ) from None
        for refused in self._refused.values():
            if version in refused:
                raise NotApplied(refused[version])

    async def _settle(self) -> None:
        """Wait until everything that is accepted is applied.

        The file may know more than we do: who wanted a mutation can be gone before it answered.
        """
        await self._note(await self._run(self._file.tip))
        try:
            async with asyncio.timeout(SETTLE_SECONDS), self._moved:
                await self._moved.wait_for(partial(self._is_applied, self._tip))
        except TimeoutError:
            raise StoreTimeout(
                f"nothing is accepted, as {self.behind} earlier changes are not applied within "
                f"{SETTLE_SECONDS:g} s{self._why()}"
            ) from None

    def _why(self) -> str:
        return f"; {self.last_failure}" if self.last_failure else ""

    async def _note(self, version: int) -> None:
        async with self._moved:
            self._tip = max(self._tip, version)
            self._moved.notify_all()

    def _is_applied(self, version: int) -> bool:
        return all(applied >= version for applied in self._applied.values())

    async def _append(self, points: Sequence[Point]) -> int:
        version = await self._run(partial(self._file.append, points))
        await self._note(version)
        return version

    async def _change(
        self, found: Sequence[Point], changes: Payload, *, replace: bool
    ) -> tuple[int, int]:
        points = [with_payload(p, changes, replace=replace) for p in found if not p.is_tombstone]
        if points:
            await self._append(points)
        return self._tip, len(points)

    async def _ids(self, where: Filter) -> list[list[PointId]]:
        """Return the ids that a filter finds, in portions of one mutation."""
        portions: list[list[PointId]] = []
        after: PointId | None = None
        while True:
            points, after = await self._store.scroll(
                self.routing.read, after=after, limit=PAGE, where=live(where)
            )
            if points:
                portions.append([point.id for point in points])
            if after is None:
                return portions

    async def _write(self, target: str) -> None:
        """Bring a physical collection what it has not; runs until cancelled."""
        failures = 0
        while True:
            try:
                await self._write_some(target)
                failures = 0
            except (sqlite3.Error, OSError) as error:
                failures += 1
                self.last_failure = f"the log cannot be used: {error}"
                pause = exponential(failures, FIRST_RETRY_SECONDS, RETRY_LIMIT_SECONDS)
                log.error("the log cannot be used", error=str(error), again_in=pause)  # noqa: TRY400
                await asyncio.sleep(pause)

    async def _write_some(self, target: str) -> None:
        """Bring it the next few changes, once there are some."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._applied[target] < self._tip)
        done = self._applied[target]
        records = await self._run(partial(self._file.after, done, AT_ONCE))
        if not records:
            raise RuntimeError(f"mutations after {done} are missing from the log")
        reasons = await asyncio.gather(*(self._apply(target, each) for each in records))
        refused = [(r.version, why) for r, why in zip(records, reasons, strict=True) if why]
        last = records[-1].version
        await self._run(partial(self._file.note_applied, target, last, refused))
        async with self._moved:
            self._applied[target] = last
            self._refused[target].update(refused)
            self._moved.notify_all()

    async def _apply(self, target: str, record: Record) -> str | None:
        """Apply a mutation, however long the store is away; return why it would not take it."""
        attempt = 0
        while True:
            try:
                await self._store.write(target, record.points, record.version)
            except StoreUnavailable as error:
                attempt += 1
                self.last_failure = str(error)
                pause = exponential(attempt, FIRST_RETRY_SECONDS, RETRY_LIMIT_SECONDS)
                log.warning("the store takes no changes", error=str(error), again_in=pause)
                await asyncio.sleep(pause)
            except StoreRefused as error:
                log.error(  # noqa: TRY400 - the store's words say it all
                    "the store refuses a change that was accepted",
                    target=target,
                    version=record.version,
                    error=str(error),
                )
                return str(error)
            else:
                self.last_failure = None
                return None

    async def _sweep(self) -> None:
        """Forget what nobody can need any more; runs until cancelled."""
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            with suppress(StoreUnavailable):  # the next round will do
                await self.forget(self._now() - KEPT_SECONDS)

    async def forget(self, before: float) -> int:
        """Drop tombstones, then mutations, that are applied everywhere and older than a time."""
        version = await self._run(partial(self._file.forgettable, before))
        if version:
            for target in self.routing.write:
                await self._store.purge(target, version)
            await self._run(partial(self._file.forget, version))
        return version

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
