"""Room: how a load comes by its memory.

What is free is taken at once. Otherwise one load at a time has its turn: what is only kept warm
goes first, then idle models leave for it, and their bytes count once they are back. While those
that could leave are busy it waits; if requests wait for it, busy models are asked to finish and
make room after a while, so that no model waits for ever beside others that are always in use. Every
wait ends at the claim's deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.decisions import Decisions, Rule
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.eviction import GRACE_SECONDS, Candidate
from ullage_runtime.core.levels import longest_idle
from ullage_runtime.core.placement import victims_among
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.governor.refusals import MemoryRefusedError
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.metrics import ModelMetrics
from ullage_runtime.models.spare import SpareEngine
from ullage_runtime.models.warm import WarmTier

TURN_SECONDS: Final = 10.0
"""How long requests wait beside busy models before those must make room."""


class Resident(Protocol):
    """A model that may have to leave."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def running(self) -> int:
        """Requests that hold it."""
        ...

    def candidate(self) -> Candidate | None:
        """Return it as others see it who need memory, or None when it has none to give."""
        ...

    def hold_back(self, *, hold: bool) -> None:
        """Have new requests wait, or no longer."""
        ...

    def begin_evict(self, rule: Rule, beneficiary: str | None) -> "asyncio.Task[None] | None":
        """Unload it; None when there is nothing to unload."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """A model that wants memory, and what may be done for it."""

    model: str
    priority: int
    deadline: float
    """When waiting ends, on the monotonic clock."""
    may_evict: bool
    for_requests: Callable[[], bool]
    """Whether requests wait for it now, so that busy models give it a turn."""
    drain_own: Callable[[MemoryRefusedError], Awaitable[bool]]
    """Makes room by unloading what the model has loaded itself; False if that is not enough."""
    on_wait: Callable[[MemoryRefusedError], None]
    """Told why the load has to wait."""
    on_grant: Callable[[], None]
    """Told that it need not any more."""


class _Outcome(Enum):
    """What came of an attempt to make room."""

    MADE = 1
    WAIT = 2
    HOPELESS = 3
    """Waiting does not help either: who could leave is pinned, or of a higher priority."""


class Room:
    """The memory of one pod, as loads ask for it."""

    def __init__(
        self,
        governor: Governor,
        clock: Clock,
        decisions: Decisions,
        metrics: ModelMetrics,
        spare: SpareEngine,
        warm: WarmTier,
    ) -> None:
        self._governor = governor
        self._spare = spare
        self._warm = warm
        self._clock = clock
        self._decisions = decisions
        self._metrics = metrics
        self._residents: dict[str, Resident] = {}
        self._turn = asyncio.Lock()
        self._stirred = asyncio.Event()
        governor.on_release = self.stir

    def enter(self, resident: Resident) -> None:
        """Count a model among those that may have to leave."""
        self._residents[resident.name] = resident

    def leave(self, resident: Resident) -> None:
        """Forget a model."""
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]

    def stir(self) -> None:
        """Have a load that waits look again: a lease has ended, or memory is back."""
        self._stirred.set()

    def has(self, count: int, among: int) -> bool:
        """Whether so many bytes are free, on so many devices, and nobody waits for memory."""
        besides = self._spare.bytes + self._warm.reclaimable
        return not self._turn.locked() and self._governor.has(count, among, besides=besides)

    @property
    def is_calm(self) -> bool:
        """Whether nobody loads or waits for memory."""
        return not self._turn.locked() and not self._governor.reserving

    def relieve(self, threshold: float | None) -> None:
        """Have idle models leave that their device's level does not let stay.

        One that comes back by itself would do so at once, so it leaves only when it must.
        """
        for resident in tuple(self._residents.values()):
            one = resident.candidate()
            if one is None or one.pinned or not one.is_idle:
                continue
            level = self._governor.level_of(one.devices)
            longest = None if level is None else longest_idle(level, threshold)
            if longest is None or (one.idle_seconds or 0) < longest:
                continue
            if not one.returns or level is MemoryLevel.CRITICAL:
                resident.begin_evict(Rule.LEVEL, None)

    def check(self, model: str, footprint: Footprint) -> None:
        """Raise MemoryRefusedError for a model that can never have its memory."""
        try:
            self._governor.check(footprint)
        except MemoryRefusedError as refused:
            self._refuse(model, refused, Rule.NEVER_FITS)
            raise

    async def reserve(
        self, owner: str, footprint: Footprint, claim: Claim, *, instead_of: str | None = None
    ) -> Reservation:
        """Return a reservation, in place of warm bytes if need be; raises MemoryRefusedError."""
        try:
            reservation = self._governor.reserve(owner, footprint, instead_of=instead_of)
        except MemoryRefusedError as refused:
            if refused.final:
                self._refuse(claim.model, refused, Rule.NEVER_FITS)
                raise
            last = refused
        else:
            claim.on_grant()
            return reservation
        if self._turn.locked():
            claim.on_wait(last)
        try:
            async with asyncio.timeout_at(claim.deadline), self._turn:
                reservation = await self._in_turn(owner, footprint, claim, instead_of)
        except TimeoutError:
            self._refuse(claim.model, last, Rule.NO_ROOM)
            raise last from None
        claim.on_grant()
        return reservation

    async def _in_turn(
        self, owner: str, footprint: Footprint, claim: Claim, instead_of: str | None
    ) -> Reservation:
        began = self._clock.monotonic()
        while True:
            self._stirred.clear()
            try:
                return self._governor.reserve(owner, footprint, instead_of=instead_of)
            except MemoryRefusedError as refused:
                if refused.final:
                    raise
                outcome = await self._make_room(claim, refused, began)
                if outcome is _Outcome.HOPELESS:
                    self._refuse(claim.model, refused, Rule.NO_ROOM)
                    raise
                if outcome is _Outcome.WAIT:
                    claim.on_wait(refused)
            if outcome is _Outcome.WAIT:
                await self._wait(claim, began)

    async def _make_room(
        self, claim: Claim, refused: MemoryRefusedError, began: float
    ) -> "_Outcome":
        """Have models leave if any may now."""
        if refused.fits_without(0, ()):
            return _Outcome.WAIT
        if await self._warm.give(min(refused.lacking.values()), claim.model):
            return _Outcome.MADE
        others = self._others(claim)
        idle = _victims((c for c in others if c.is_idle), refused, claim)
        if claim.may_evict and idle is not None:
            await self._evict(self._named(idle), claim, Rule.DEMAND)
            return _Outcome.MADE
        if await claim.drain_own(refused):
            return _Outcome.MADE
        if not claim.may_evict:
            return _Outcome.HOPELESS
        return await self._beside_busy_ones(claim, others, refused, began)

    async def _beside_busy_ones(
        self, claim: Claim, others: list[Candidate], refused: MemoryRefusedError, began: float
    ) -> "_Outcome":
        """Wait for models that are in use, or have them give a turn."""
        possible = _victims(others, refused, claim)
        if possible is None:
            # What is being loaded may leave once it has shown itself.
            return _Outcome.WAIT if self._governor.reserving else _Outcome.HOPELESS
        if claim.for_requests() and self._clock.monotonic() - began >= TURN_SECONDS:
            await self._take_turn(self._named(possible), claim)
            return _Outcome.MADE
        return _Outcome.WAIT

    async def _wait(self, claim: Claim, began: float) -> None:
        """Wait until a lease ends, memory comes back, or a model's grace or our patience ends."""
        now = self._clock.monotonic()
        times = [claim.deadline]
        if claim.for_requests():
            times.append(max(began + TURN_SECONDS, now + 1))
        times += [
            now + GRACE_SECONDS - other.idle_seconds
            for other in self._others(claim)
            if other.idle_seconds is not None and not other.is_idle
        ]
        try:
            async with asyncio.timeout_at(max(min(times), now + 0.01)):
                await self._stirred.wait()
        except TimeoutError:
            return

    async def _evict(self, residents: list[Resident], claim: Claim, rule: Rule) -> None:
        leaving = (resident.begin_evict(rule, claim.model) for resident in residents)
        tasks = {task for task in leaving if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    async def _take_turn(self, residents: list[Resident], claim: Claim) -> None:
        """Have busy models finish what runs, hold what comes, and leave."""
        for resident in residents:
            resident.hold_back(hold=True)
        try:
            while any(resident.running for resident in residents):
                self._stirred.clear()
                await self._stirred.wait()
            await self._evict(residents, claim, Rule.TURN)
        finally:
            for resident in residents:
                resident.hold_back(hold=False)

    def _named(self, chosen: tuple[Candidate, ...]) -> list[Resident]:
        return [self._residents[candidate.name] for candidate in chosen]

    def _others(self, claim: Claim) -> list[Candidate]:
        candidates = (r.candidate() for n, r in self._residents.items() if n != claim.model)
        return [c for c in candidates if c is not None]

    def _refuse(self, model: str, refused: LoadError, rule: Rule) -> None:
        needs = refused.footprint.total if isinstance(refused, MemoryRefusedError) else 0
        self._decisions.add(
            time=self._clock.wall(),
            model=model,
            rule=rule,
            count=needs,
            beneficiary=None,
            message=refused.message,
        )
        self._metrics.refusals.labels(model, rule.value).inc()


def _victims(
    candidates: Iterable[Candidate], refused: MemoryRefusedError, claim: Claim
) -> tuple[Candidate, ...] | None:
    """Return who leaves for a claim."""
    return victims_among(candidates, refused.lacking, refused.footprint.among, claim.priority)


def words(rule: Rule, count: int, beneficiary: str | None, idle: float | None, setting: str) -> str:
    """Return why a model left, for people; `setting` says how long it may be idle."""
    size = human_bytes(count)
    since = f" after {idle:.0f} s without requests" if idle is not None else ""
    if rule is Rule.IDLE:
        return f"left memory{since}, as residency.{setting} says; {size} are free again"
    if rule is Rule.LEVEL:
        return f"left memory{since}, as it was nearly full; {size} are free again"
    if rule is Rule.TURN:
        return f"made room for model {beneficiary!r}, whose requests waited: {size}"
    return f"made room for model {beneficiary!r}{since}: {size}"
