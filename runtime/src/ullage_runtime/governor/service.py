"""The governor: grants memory before a load, records what it took, and takes it back once."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.wire.pod_report import DeviceKind, ReportedDevice
from ullage_runtime.core.budgets import MemoryPolicy, left_beside_neighbours
from ullage_runtime.core.domain import EngineStats, Footprint
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.ledger import (
    EntryState,
    Granted,
    Ledger,
    MustWait,
    NeverFits,
)
from ullage_runtime.core.levels import IDLE_SECONDS
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.engines.base import Engine
from ullage_runtime.governor.devices import Device, Reading
from ullage_runtime.governor.monitor import Monitor

STALLED: Final = 0.10
"""Share of the last 10 s that processes waited for memory, from which nothing is kept warm."""

_SHORT: Final = frozenset({MemoryLevel.HIGH, MemoryLevel.CRITICAL})


class MemoryRefusedError(LoadError):
    """A load that memory does not allow, now or ever, with the numbers."""

    footprint: Footprint
    budget: int
    free: int


class Reservation:
    """A generation's entry in the ledger; released exactly once, whoever asks how often."""

    def __init__(self, governor: "Governor", owner: str, footprint: Footprint) -> None:
        self._governor = governor
        self._over = False
        self._leaving = False
        self.owner = owner
        self.footprint = footprint
        self.bytes = footprint.total
        self.stats: EngineStats | None = None
        """What the engine said of itself when it was last measured."""

    async def measure(self, engine: Engine) -> int:
        """Replace the estimate, or the last measurement, by what the engine takes now."""
        self.stats = stats = await engine.stats()
        taken = await self._governor.taken_by(
            engine.pid, stats.resident_bytes, self.footprint.total
        )
        if not self._over and not self._leaving:
            self._governor.commit(self.owner, taken)
            self.bytes = taken
        return self.bytes

    def releasing(self) -> None:
        """Note that the engine is about to end."""
        if not self._over and not self._leaving:
            self._leaving = True
            self._governor.begin_release(self.owner)

    def release(self) -> None:
        """Give the bytes back, after the engine has ended."""
        if not self._over:
            self._over = True
            self._governor.release(self.owner)


class WarmBytes:
    """Bytes of the host's memory that keep something of a model which has left; released once."""

    def __init__(self, governor: "Governor", owner: str, count: int) -> None:
        self._governor = governor
        self._over = False
        self.owner = owner
        self.bytes = count

    def settle(self, count: int) -> None:
        """Replace the promise by what is really kept."""
        if not self._over:
            self.bytes = count
            self._governor.keep_warm(self.owner, count)

    def hand_over(self) -> None:
        """Note that a load has taken the bytes over, and answers for them from now on."""
        self._over = True

    def release(self) -> None:
        """Give the bytes back, after what was kept is gone."""
        if not self._over:
            self._over = True
            self._governor.release(self.owner)


class Governor:
    """The ledger of one pod, with its devices' budgets."""

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        policy: MemoryPolicy | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._devices = tuple(devices)
        self._totals = {device.id: device.total() for device in self._devices}
        self._host = next((d for d in self._devices if d.kind is DeviceKind.HOST), None)
        self._monitor = Monitor(self._devices, self._warm_on)
        self._ledger = Ledger()
        self._released = asyncio.Event()
        self._releases = 0
        self._refused: int | None = None
        """The least that was refused for neighbours' sake and is not known to fit since."""
        self.on_release: Callable[[], None] = lambda: None
        """Called whenever memory has been given back or the budget has changed."""
        gauge = Gauge(
            "ullage_ledger_bytes",
            "Bytes the ledger accounts for, by device and state.",
            ["device", "state"],
            registry=registry,
        )
        self._gauges = [
            (device.id, state, gauge.labels(device.id, state.value))
            for device in self._devices
            for state in EntryState
        ]
        self.configure(policy or MemoryPolicy())

    @property
    def free(self) -> int:
        """The bytes that could be granted now; negative after models or neighbours grew."""
        return self._ledger.free(self._governed.id)

    @property
    def is_short(self) -> bool:
        """Whether memory is so full that nothing is to be loaded for which nobody asks."""
        return self.level in _SHORT

    @property
    def releasing(self) -> int:
        """The bytes that engines on their way out are about to give back."""
        return self._ledger.used_as(self._governed.id, EntryState.RELEASING)

    @property
    def reserving(self) -> int:
        """The bytes promised to models that are being loaded."""
        return self._ledger.used_as(self._governed.id, EntryState.RESERVED)

    @property
    def releases(self) -> int:
        """How often memory has been given back; see `released_since`."""
        return self._releases

    def configure(self, policy: MemoryPolicy) -> None:
        """Set how much of each device's memory models may take, and when it is called short."""
        self._policy = policy
        self._monitor.thresholds = policy.thresholds
        self._set_budgets()

    async def sample(self, now: float) -> None:
        """Read every device; `now` is on the monotonic clock. Budgets follow a changed total."""
        await self._monitor.sample(now)
        readings = {d.id: r for d in self._devices if (r := self._monitor.reading(d.id))}
        totals = self._totals | {device: reading.total for device, reading in readings.items()}
        before = self.free
        for device in self._totals:
            reading = readings.get(device)
            left = None if reading is None else self._left_of(device, reading)
            self._ledger.set_left(device, left)
        if totals != self._totals:
            self._totals = totals
            self._set_budgets()
        if self._refused is not None and self.free >= self._refused:
            self._refused = None
            self._notify()
        elif self.free > before:
            self.on_release()

    def _left_of(self, device: str, reading: Reading) -> int:
        ledger = self._ledger.used(device)
        return left_beside_neighbours(
            total=reading.total, used=reading.used, own=reading.own, ledger=ledger
        )

    @property
    def level(self) -> MemoryLevel | None:
        """How full the memory is that models are loaded into; None while nobody can tell."""
        return self._monitor.level(self._governed.id)

    @property
    def levels(self) -> tuple[MemoryLevel | None, ...]:
        """The same of every device."""
        return tuple(self._monitor.level(device.id) for device in self._devices)

    def _set_budgets(self) -> None:
        for device in self._devices:
            total = self._totals[device.id]
            share = self._policy.models if device is self._governed else self._policy.host
            if device.kind is DeviceKind.GPU:
                share = self._policy.models
            self._ledger.set_budget(device.id, total=total, budget=share.of(total))
        self._notify()

    def reserve(
        self, owner: str, footprint: Footprint, *, instead_of: str | None = None
    ) -> Reservation:
        """Reserve what a load takes; raises MemoryRefusedError.

        `instead_of` owns warm bytes of the same memory, which the load takes over.
        """
        needed, device = footprint.total, self._governed.id
        decision = self._ledger.reserve(owner, device, needed, instead_of=instead_of)
        match decision:
            case Granted():
                self._export()
                return Reservation(self, owner, footprint)
            case NeverFits():
                raise _never(footprint, decision)
            case MustWait(free=free, budget=budget):
                if needed <= free + self._ledger.taken_by_neighbours(device):
                    self._refused = min(needed, self._refused or needed)
                message = (
                    f"needs {_words(footprint)}; {human_bytes(max(0, free))} of the pool's "
                    f"budget of {human_bytes(budget)} are free{self._beside()}; it loads once "
                    "others leave"
                )
                raise _refused(Reason.WAITING_FOR_MEMORY, message, footprint, budget, free)

    def _beside(self) -> str:
        """Say, if it is so, that neighbours are the reason why no more is free."""
        taken = self._ledger.taken_by_neighbours(self._governed.id)
        return f" beside neighbours, who take {human_bytes(taken)} of it" if taken else ""

    def check(self, footprint: Footprint) -> None:
        """Raise MemoryRefusedError for what can never be reserved, whoever leaves."""
        never = self._ledger.never_fits(self._governed.id, footprint.total)
        if never is not None:
            raise _never(footprint, never)

    async def released_since(self, releases: int) -> None:
        """Wait until memory has been given back since `releases` was read."""
        while self._releases == releases:
            await self._released.wait()

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:
        """Return what an engine's process takes of the memory that models are loaded into."""
        return await self._governed.taken_by(pid, resident, estimated)

    def commit(self, owner: str, taken: int) -> None:
        """Record what a loaded model takes."""
        self._ledger.commit(owner, taken)
        self._export()

    def begin_release(self, owner: str) -> None:
        """Mark an entry as on its way out."""
        self._ledger.begin_release(owner)
        self._export()

    def release(self, owner: str) -> None:
        """Take an entry's bytes back and wake whoever waits for memory."""
        self._ledger.release(owner)
        self._export()
        self._notify()

    def report(self) -> tuple[ReportedDevice, ...]:
        """Return every device as the pod's report shows it."""
        return tuple(self._reported(device) for device in self._devices)

    # What is kept warm ---------------------------------------------------------------------------

    @property
    def loads_into_host(self) -> bool:
        """Whether models are loaded into the very memory in which others are kept warm."""
        return self._host is self._governed

    @property
    def idle_threshold(self) -> float | None:
        """Seconds that a model may be idle from `Moderate` on if nobody says; None for ever.

        Beside a GPU what leaves waits in the pod's memory. Where that is the device, it would be
        emptied just when memory is short, and a return would cost a load.
        """
        if self.loads_into_host or not self._policy.offload:
            return None
        return IDLE_SECONDS

    @property
    def host_is_short(self) -> bool:
        """Whether nothing is kept: memory is full or much waited for, or it is switched off."""
        if not self._policy.offload or self._host is None or self._ledger.free(self._host.id) < 0:
            return True
        reading = self._monitor.reading(self._host.id)
        stalled = 0.0 if reading is None else reading.stalled or 0.0
        return stalled >= STALLED or self._monitor.level(self._host.id) in _SHORT

    @property
    def warm_room(self) -> int:
        """Bytes of host memory in which something may be kept now."""
        host = self._host
        if host is None or self.host_is_short:
            return 0
        most = self._policy.host.of(self._totals[host.id])
        kept = self._ledger.used_as(host.id, EntryState.WARM)
        return max(0, min(most - kept, self._ledger.free(host.id)))

    def reserve_warm(self, owner: str, count: int) -> WarmBytes | None:
        """Reserve host memory to keep something warm in, or return None: nobody leaves for it."""
        if self._host is None or count > self.warm_room:
            return None
        if not isinstance(self._ledger.reserve(owner, self._host.id, count), Granted):
            return None
        self._export()
        return WarmBytes(self, owner, count)

    def keep_warm(self, owner: str, count: int) -> None:
        """Record what is really kept."""
        self._ledger.keep_warm(owner, count)
        self._export()

    def _warm_on(self, device: Device) -> int:
        """Return the bytes of a device that are kept warm, and mapped by no process."""
        return self._ledger.used_as(device.id, EntryState.WARM) if device is self._host else 0

    def _reported(self, device: Device) -> ReportedDevice:
        total = self._totals[device.id]
        reading = self._monitor.reading(device.id) or Reading(total=total, used=0)
        return ReportedDevice(
            id=device.id,
            kind=device.kind,
            name=device.name,
            total_bytes=total,
            budget_bytes=self._ledger.budget(device.id),
            used_bytes=reading.used,
            own_bytes=reading.own,
            ledger_bytes=self._ledger.used(device.id),
            warm_bytes=self._ledger.used_as(device.id, EntryState.WARM),
            level=self._monitor.level(device.id),
            throttling=reading.throttling,
            stalled=reading.stalled,
        )

    @property
    def _governed(self) -> Device:
        return self._devices[0]

    def _notify(self) -> None:
        self._releases += 1
        waiters, self._released = self._released, asyncio.Event()
        waiters.set()
        self.on_release()

    def _export(self) -> None:
        for device, state, gauge in self._gauges:
            gauge.set(self._ledger.used_as(device, state))


def _words(footprint: Footprint) -> str:
    return (
        f"{human_bytes(footprint.total)} (weights {human_bytes(footprint.weights)}, "
        f"KV cache {human_bytes(footprint.kv_cache)}, compute {human_bytes(footprint.compute)}, "
        f"process {human_bytes(footprint.overhead)})"
    )


def _never(footprint: Footprint, never: NeverFits) -> MemoryRefusedError:
    budget = never.budget
    message = (
        f"needs {_words(footprint)}; the pool's budget is {human_bytes(budget)} of "
        f"{human_bytes(never.total)}; try a smaller contextLength or quantisation"
    )
    return _refused(Reason.WILL_NEVER_FIT, message, footprint, budget, budget)


def _refused(
    reason: Reason, message: str, footprint: Footprint, budget: int, free: int
) -> MemoryRefusedError:
    final = reason is Reason.WILL_NEVER_FIT
    error = MemoryRefusedError(reason=reason, message=message, final=final)
    error.footprint, error.budget, error.free = footprint, budget, free
    return error
