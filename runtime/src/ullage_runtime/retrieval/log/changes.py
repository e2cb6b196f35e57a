"""A collection's mutations: accepted in one order, and brought to every index that wants them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from ullage_runtime.retrieval.log.file import FailedWrite, KeptJob, LogFile, Routing
from ullage_runtime.retrieval.log.records import tombstone, with_payload
from ullage_runtime.retrieval.log.writer import Shared, Writer
from ullage_runtime.retrieval.making import Making, NoRemaker, Remaker
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    Filter,
    Payload,
    Point,
    PointId,
    Store,
    StoreTimeout,
    StoreUnavailable,
)

T = TypeVar("T")

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
    returns when what is read has it.
    """

    def __init__(
        self,
        file: LogFile,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        remaker: Remaker | None = None,
    ) -> None:
        self._file = file
        self._store = store
        self._now = now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="change-log")
        self._order = asyncio.Lock()
        self._shared = Shared(file, store, remaker or NoRemaker(), self.on_file)
        self._writers: dict[str, Writer] = {}
        self._routing: Routing | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def routing(self) -> Routing:
        """Where reads and writes go."""
        if self._routing is None:
            raise RuntimeError("the log has not been started")
        return self._routing

    @property
    def tip(self) -> int:
        """The last mutation that is known to be accepted."""
        return self._shared.tip

    @property
    def applied(self) -> int:
        """The last mutation that searches see, with all before it."""
        return self._read.applied

    @property
    def behind(self) -> int:
        """How many mutations searches have yet to see."""
        return self.tip - self.applied

    @property
    def last_failure(self) -> str | None:
        """Why what is read does not take what is to be applied; None while it does."""
        return self._read.last_failure

    @property
    def _read(self) -> Writer:
        return self._writers[self.routing.read]

    def writer(self, target: str) -> Writer | None:
        """Return what writes to a physical collection; None where nothing is written."""
        return self._writers.get(target)

    async def open(self) -> Routing | None:
        """Read the file and return where reads and writes went last; None for a new one."""
        self._shared.tip = await self.on_file(self._file.tip)
        return await self.on_file(self._file.routing)

    async def start(self, routing: Routing) -> None:
        """Read and write as a routing says, from now on."""
        if await self.on_file(self._file.routing) != routing:
            await self.on_file(partial(self._file.route, routing))
        await self._follow(routing)
        self._sweeper = asyncio.create_task(self._sweep())

    async def reroute(
        self,
        change: Callable[[Routing], Routing],
        job: Callable[[int], KeptJob] | None = None,
        *,
        settled: Sequence[str] = (),
        seconds: float = SETTLE_SECONDS,
    ) -> int:
        """Read and write elsewhere, in one transaction with a job's record; return the barrier.

        The barrier is the last mutation before it: what is written anew gets all after it. No
        mutation is accepted meanwhile. First the `settled` get all that is accepted, for which it
        waits so many seconds; raises StoreTimeout, and then nothing has changed.
        """
        async with self._order:
            if settled:
                await self._settle(settled, seconds)
            before = self.routing
            barrier = await self.on_file(self._file.tip)
            routing = change(before)
            begun = {each: barrier for each in routing.write if each not in before.write}
            kept = None if job is None else job(barrier)
            await self.on_file(partial(self._file.route, routing, begun=begun, job=kept))
            await self._follow(routing)
            return barrier

    async def jobs(self) -> list[KeptJob]:
        """Return the records of all reindex jobs."""
        return await self.on_file(self._file.jobs)

    async def keep_job(self, job: KeptJob) -> None:
        """Keep a reindex job's record; it is on the disk when this returns."""
        await self.on_file(partial(self._file.keep_job, job))

    async def forget_job(self, uid: str) -> None:
        """Drop a reindex job's record and its checkpoint."""
        await self.on_file(partial(self._file.forget_job, uid))

    async def checkpoint(self, uid: str) -> dict[str, Any] | None:
        """Return how far a job's copy has come."""
        return await self.on_file(partial(self._file.checkpoint, uid))

    async def keep_checkpoint(self, uid: str, body: Mapping[str, Any]) -> None:
        """Keep how far a job's copy has come."""
        await self.on_file(partial(self._file.keep_checkpoint, uid, body))

    async def failed(self, target: str, limit: int) -> tuple[int, list[FailedWrite]]:
        """Return how many points could not be made for a physical collection, and some of them."""
        return await self.on_file(partial(self._file.failed, target, limit))

    async def _follow(self, routing: Routing) -> None:
        """Have exactly the writers that a routing asks for."""
        for target in set(self._writers) - set(routing.write):
            await self._writers.pop(target).close()
        for target in routing.write:
            if target not in self._writers:
                making = routing.making_of(target)
                writer = Writer(target, making if making.model else None, self._shared)
                await writer.start()
                self._writers[target] = writer
        self._routing = routing
        async with self._shared.moved:
            self._shared.moved.notify_all()

    async def close(self) -> None:
        """End the writers; what they have not applied they apply next time."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    async def upsert(self, points: Sequence[Point], made_with: Making | None = None) -> int:
        """Accept points as they are to be and return the mutation's version.

        `made_with` says what their vectors come from; None: as those of what is read.
        """
        async with self._order:
            return await self._append(points, made_with)

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
            return self.tip, total

    async def delete_where(self, where: Filter) -> tuple[int, int]:
        """Accept that all points are to be no more that a filter finds now."""
        total = 0
        async with self._order:
            await self._settle()
            for ids in await self._ids(where):
                await self._append([tombstone(each) for each in ids])
                total += len(ids)
            return self.tip, total

    async def wait(self, version: int, seconds: float | None = None) -> None:
        """Wait until searches see a mutation; raises StoreTimeout or NotApplied."""
        moved = self._shared.moved
        try:
            async with asyncio.timeout(seconds), moved:
                await moved.wait_for(lambda: self._read.applied >= version)
        except TimeoutError:
            raise StoreTimeout(
                f"the change is accepted, but not applied within {seconds:g} s{_why(self._read)}"
            ) from None
        if version in self._read.refused:
            raise NotApplied(self._read.refused[version])

    async def aliases(self) -> set[str]:
        """Return the store's aliases that may be this collection's."""
        return await self.on_file(self._file.aliases)

    async def note_aliases(self, names: Iterable[str]) -> None:
        """Note which they are."""
        await self.on_file(partial(self._file.note_aliases, list(names)))

    async def settled(self, targets: Sequence[str], seconds: float) -> int:
        """Wait until physical collections have all that is accepted by now; return how much it is.

        Raises StoreTimeout.
        """
        await self._note(await self.on_file(self._file.tip))
        moved, tip = self._shared.moved, self.tip
        try:
            async with asyncio.timeout(seconds), moved:
                await moved.wait_for(lambda: all(self._has(each, tip) for each in targets))
        except TimeoutError:
            slow = [w for w in map(self.writer, targets) if w is not None and w.applied < tip]
            behind = max((tip - writer.applied for writer in slow), default=0)
            raise StoreTimeout(
                f"{behind} earlier changes are not applied within {seconds:g} s{_why(*slow)}"
            ) from None
        return tip

    def _has(self, target: str, version: int) -> bool:
        """Whether a physical collection has a mutation, or is no longer written."""
        writer = self.writer(target)
        return writer is None or writer.applied >= version

    async def _settle(
        self, targets: Sequence[str] | None = None, seconds: float = SETTLE_SECONDS
    ) -> None:
        """Wait until everything that is accepted is applied.

        The file may know more than we do: who wanted a mutation can be gone before it answered.
        """
        try:
            await self.settled(targets or (self.routing.read,), seconds)
        except StoreTimeout as error:
            raise StoreTimeout(f"nothing is accepted, as {error}") from None

    async def _note(self, version: int) -> None:
        async with self._shared.moved:
            self._shared.tip = max(self.tip, version)
            self._shared.moved.notify_all()

    async def _append(self, points: Sequence[Point], made_with: Making | None = None) -> int:
        # Decided here, where the routing stays as it is: vectors may have been made before it.
        routing = self.routing
        usual = routing.making_of(routing.read)
        made_with = made_with or usual
        is_plain = made_with == usual and not routing.others
        said = None if is_plain or not made_with.model else made_with
        version = await self.on_file(partial(self._file.append, points, said))
        await self._note(version)
        return version

    async def _change(
        self, found: Sequence[Point], changes: Payload, *, replace: bool
    ) -> tuple[int, int]:
        points = [with_payload(p, changes, replace=replace) for p in found if not p.is_tombstone]
        if points:
            await self._append(points)
        return self.tip, len(points)

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

    async def _sweep(self) -> None:
        """Forget what nobody can need any more; runs until cancelled."""
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            with suppress(StoreUnavailable):  # the next round will do
                await self.forget(self._now() - KEPT_SECONDS)

    async def forget(self, before: float) -> int:
        """Drop tombstones, then mutations, that are applied everywhere and older than a time."""
        version = await self.on_file(partial(self._file.forgettable, before))
        if version:
            for target in self.routing.write:
                await self._store.purge(target, version)
            await self.on_file(partial(self._file.forget, version))
        return version

    async def on_file(self, work: Callable[[], T]) -> T:
        """Do work with the file, in its own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _why(*writers: Writer) -> str:
    reasons = [writer.last_failure for writer in writers if writer.last_failure]
    return f"; {reasons[0]}" if reasons else ""
