"""Admission: one model's bounded queue, from a request's arrival to its lease."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, NamedTuple

from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.arms import Share
from ullage_runtime.core.errors import (
    EngineDied,
    MemoryBusy,
    ModelLoading,
    Overloaded,
    Preempted,
    ServingError,
)
from ullage_runtime.core.scheduling.fairness import Service
from ullage_runtime.core.scheduling.sequence import aged
from ullage_runtime.models.batch_work import BatchWork, held_in_vain
from ullage_runtime.models.lease import BoundLease, NoAdapter, too_long
from ullage_runtime.models.live import Live
from ullage_runtime.models.shared_embeddings import SharedEmbeddings

MAX_QUEUE: Final = 64
HOLD_SECONDS: Final = 120
REQUEST_SECONDS: Final = 300
"""What an unset limit means."""


class _Ask(NamedTuple):
    """A request, as the queue sees it."""

    tenant: str
    priority: int
    deadline: float
    seconds: int
    beside: bool
    again: bool
    batch: BatchWork | None
    """What it makes way with; None for what never has to."""


class _SentBackError(Exception):
    """A request of batch work is to leave the queue, and to come again once it may run."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that waits for its turn."""

    tenant: str
    turn: "asyncio.Future[Live]"
    priority: int
    since: float

    def claim(self, now: float) -> int:
        """Return its priority with what its age makes up for.

        Age puts nobody before the others: who has many requests would pass who has few.
        """
        return min(max(0, self.priority), aged(self.priority, now - self.since))


class Admission:
    """Hands the current generation to requests, in the order of their arrival for each tenant.

    Tenants take turns, so that one with many requests does not hold up one with few; and when the
    queue is full, the tenant with most in it makes room for one with fewer. Requests of a lower
    priority come after all others, and make room for them first.

    While there is none, requests are held: up to `holdSeconds`, or until `refuse` says that
    waiting makes no sense. A request binds its generation when it leaves the queue.
    """

    def __init__(
        self,
        model: str,
        no_adapter: NoAdapter,
        embeddings: SharedEmbeddings,
    ) -> None:
        self._model = model
        self._embeddings = embeddings
        self._no_adapter = no_adapter
        self._waiting: list[_Waiter] = []
        self._holding: Counter[str] = Counter()
        self._turns = Service()
        self._current: Live | None = None
        self._newer: Live | None = None
        self._share = Share(0)
        self._refusal: Callable[[], ServingError] | None = None
        self._running = 0
        self._held_back = False
        self.limits = ServingLimits()
        self.memory_is_short: str | None = None
        """Why there is no room for the model now; None while that is not what it waits for."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when requests come or go."""
        self.on_miss: Callable[[], None] = lambda: None
        """Called when a request finds no generation, whether or not it may wait for one."""

    @property
    def revision(self) -> str | None:
        """What answers now; None while nothing does."""
        return None if self._current is None else self._current.generation.revision

    @property
    def running(self) -> int:
        """Requests that hold a generation."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    def route_to(self, live: Live | None) -> None:
        """Make a generation the current one; from here on requests bind it, or are held."""
        self._current = live
        self._pump()
        self._turn_away()

    def share(self, newer: Live | None, percent: int) -> None:
        """Give a newer generation so many percent of the requests, where it has room for them."""
        self._newer = newer
        if newer is None or percent != self._share.percent:
            self._share = Share(percent)
        self._pump()

    def hold_back(self, *, hold: bool) -> None:
        """Have new requests wait although there is a generation, or no longer."""
        self._held_back = hold
        self._pump()

    def refuse(self, error: Callable[[], ServingError] | None) -> None:
        """Answer requests that find no generation with an error, now and until told otherwise."""
        self._refusal = error
        self._turn_away()

    @asynccontextmanager
    async def lease(
        self,
        tenant: str = "",
        *,
        priority: int = 0,
        beside: bool = False,
        until: float | None = None,
        batch: BatchWork | None = None,
    ) -> AsyncIterator[BoundLease]:
        """Wait for a turn and hold the current generation meanwhile.

        A request `beside` the engine's work takes no turn where there is a generation. One that
        comes again has `until` left, and goes before the others. One of `batch` work waits, out of
        the queue, while that is paused, and its lease says when it has to make way.
        """
        seconds = self.limits.request_seconds or REQUEST_SECONDS
        deadline = asyncio.get_running_loop().time() + seconds if until is None else until
        ask = _Ask(tenant, priority, deadline, seconds, beside, until is not None, batch)
        live = await self._admitted(ask)
        make_way = None if batch is None else asyncio.Event()
        try:
            with _told(batch, make_way):
                yield BoundLease(
                    self._model,
                    live,
                    deadline,
                    seconds,
                    no_adapter=self._no_adapter,
                    embeddings=self._embeddings,
                    make_way=make_way,
                )
        except EngineDied:
            self._note_death(live)
            raise
        except Preempted:
            if batch is not None:
                batch.note_preempted()
            raise
        finally:
            self._leave(live, tenant)

    def _note_death(self, live: Live) -> None:
        """Bind a dead generation no more: its requests may know before those who watch over it."""
        if self._current is live:
            self._current = None
        if self._newer is live:
            self._newer = None

    async def _admitted(self, ask: _Ask) -> Live:
        while ask.batch is not None:
            await self._may_run(ask, ask.batch)
            try:
                return await self._bound(ask)
            except _SentBackError:
                continue
        return await self._bound(ask)

    async def _may_run(self, ask: _Ask, batch: BatchWork) -> None:
        """Wait until batch work may run; raises MemoryBusy or RequestTimeout."""
        held_until = self._held_until()
        if not await batch.may_run(min(held_until, ask.deadline)):
            raise held_in_vain(self._model) if held_until < ask.deadline else too_long(ask.seconds)

    async def _bound(self, ask: _Ask) -> Live:
        if self._current is None and self._refusal is not None:
            raise self._refusal()
        live = self._current if ask.beside or self._waiting else self._next()
        if live is not None and (ask.beside or not self._waiting) and not self._held_back:
            self._note_arrival(ask.tenant)
            self._bind(live, ask.tenant)
            return live
        if self._current is None:
            self.on_miss()
        if not ask.again:
            self._check_room(ask)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Live] = loop.create_future()
        waiter = _Waiter(ask.tenant, turn, ask.priority, loop.time())
        self._note_arrival(ask.tenant)
        self._waiting.insert(0 if ask.again else len(self._waiting), waiter)
        self.on_change()
        try:
            with _sent_back(ask.batch, turn):
                return await self._wait(turn, ask.deadline, ask.seconds)
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave(turn.result(), ask.tenant)
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
                self.on_change()
            raise

    def _note_arrival(self, tenant: str) -> None:
        if tenant in self._holding:
            return
        active = {*self._holding, *(waiter.tenant for waiter in self._waiting)}
        if tenant not in active:
            self._turns.arrive(tenant, active)
            self._turns.forget_idle({*active, tenant})

    def _check_room(self, ask: _Ask) -> None:
        """Raise Overloaded when the queue is full, unless somebody else must make room."""
        limit = MAX_QUEUE if self.limits.max_queue is None else self.limits.max_queue
        if len(self._waiting) < limit:
            return
        full = Overloaded(
            f"{len(self._waiting)} requests already wait for model {self._model!r}, "
            f"whose limit is {limit}",
            retry_after=1,
        )
        last = self._last_in_line(ask)
        if last is None:
            raise full
        self._waiting.remove(last)
        if not last.turn.done():
            last.turn.set_exception(full)

    def _last_in_line(self, ask: _Ask) -> _Waiter | None:
        """Return who makes room for a newcomer: of a lower priority, or else of a larger crowd."""
        now = asyncio.get_running_loop().time()
        lesser = [w for w in self._waiting if w.claim(now) < ask.priority]
        if lesser:
            return lesser[-1]
        peers = [w for w in self._waiting if w.claim(now) == ask.priority]
        waiting = Counter(waiter.tenant for waiter in peers)
        crowd, most = max(waiting.items(), key=lambda item: item[1], default=("", 0))
        if waiting[ask.tenant] + 1 >= most:
            return None
        return next(waiter for waiter in reversed(peers) if waiter.tenant == crowd)

    @property
    def _hold_seconds(self) -> int:
        hold = self.limits.hold_seconds
        return HOLD_SECONDS if hold is None else hold

    def _held_until(self) -> float:
        return asyncio.get_running_loop().time() + self._hold_seconds

    async def _wait(self, waiter: asyncio.Future[Live], deadline: float, seconds: int) -> Live:
        hold, held_until = self._hold_seconds, self._held_until()
        if await _within(waiter, min(held_until, deadline)):
            return waiter.result()
        if deadline <= held_until:
            raise too_long(seconds)
        if self._held_back:
            raise MemoryBusy(
                f"model {self._model!r} makes room for others; the request was held for {hold} s",
                retry_after=5,
            )
        if self._current is None:
            if self.memory_is_short is not None:
                raise MemoryBusy(
                    f"model {self._model!r} waits for memory; the request was held for {hold} s: "
                    f"{self.memory_is_short}",
                    retry_after=5,
                )
            raise ModelLoading(
                f"model {self._model!r} is not loaded yet; the request was held for {hold} s",
                retry_after=5,
            )
        if await _within(waiter, deadline):
            return waiter.result()
        raise too_long(seconds)

    def _next(self) -> Live | None:
        """Return the generation that takes the next request, or None while none has room."""
        live, newer = self._current, self._newer
        if live is None:
            return None
        if newer is not None and newer.has_room and self._share.is_due():
            return newer
        return live if live.has_room else None

    def _pump(self) -> None:
        """Give those who wait a generation, while one has room."""
        while self._waiting and not self._held_back and (live := self._next()) is not None:
            now = asyncio.get_running_loop().time()
            waiter = min(self._waiting, key=lambda w: (-w.claim(now), self._turns.of(w.tenant)))
            self._waiting.remove(waiter)
            if not waiter.turn.done():
                self._bind(live, waiter.tenant)
                waiter.turn.set_result(live)

    def _turn_away(self) -> None:
        """Refuse everybody who waits, if there is nothing to wait for."""
        while self._waiting and self._current is None and self._refusal is not None:
            waiter = self._waiting.pop(0)
            if not waiter.turn.done():
                waiter.turn.set_exception(self._refusal())

    def _bind(self, live: Live, tenant: str) -> None:
        live.generation.acquire()
        if self._newer is not None:
            self._share.count(given=live is self._newer)
        self._running += 1
        self._holding[tenant] += 1
        self._turns.count(tenant, 1)
        self.on_change()

    def _leave(self, live: Live, tenant: str) -> None:
        live.generation.release()
        live.note()
        self._running -= 1
        self._holding[tenant] -= 1
        if not self._holding[tenant]:
            del self._holding[tenant]
        self.on_change()
        self._pump()


def _told(batch: BatchWork | None, make_way: asyncio.Event | None) -> AbstractContextManager[None]:
    """Set an event once batch work has to make way."""
    if batch is None or make_way is None:
        return nullcontext()
    return batch.interruptible(make_way.set)


def _sent_back(batch: BatchWork | None, turn: asyncio.Future[Live]) -> AbstractContextManager[None]:
    """Have whoever waits for a turn leave the queue once batch work has to make way."""

    def send_back() -> None:
        if not turn.done():
            turn.set_exception(_SentBackError())

    return nullcontext() if batch is None else batch.interruptible(send_back)


async def _within(waiter: asyncio.Future[Live], deadline: float) -> bool:
    """Wait for a future until a deadline; tell whether it is done."""
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait({waiter})
    except TimeoutError:
        return waiter.done()
    return True
