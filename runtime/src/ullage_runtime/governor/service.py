"""The governor: grants memory before a load, records what it took, and takes it back once."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from ullage_api.kinds.memory import MemoryLevel
from ullage_api.wire.pod_report import DeviceKind, ReportedDevice
from ullage_runtime.core.budgets import MemoryPolicy, left_beside_neighbours
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.ledger import (
    EntryState,
    Granted,
    Ledger,
    MustWait,
    NeverFits,
)
from ullage_runtime.core.levels import IDLE_SECONDS
from ullage_runtime.core.placement import best_fit, roomiest
from ullage_runtime.governor.devices import Device, Reading
from ullage_runtime.governor.monitor import Monitor
from ullage_runtime.governor.refusals import must_wait, never_fits, too_few
from ullage_runtime.governor.reservations import Reservation, WarmBytes

STALLED: Final = 0.10
"""Share of the last 10 s that processes waited for memory, from which nothing is kept warm."""

_SHORT: Final = frozenset({MemoryLevel.HIGH, MemoryLevel.CRITICAL})


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
        found = [d for d in self._devices if d.kind is DeviceKind.GPU] or self._devices
        self._loaded_into = tuple(device.id for device in found)
        """Where models are loaded into: every GPU, or the pod's memory without any."""
        self._by_id = {device.id: device for device in self._devices}
        self._monitor = Monitor(self._devices, kept=self._warm_on, loaded=self._loaded_on)
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
        for device in self._devices:
            for state in EntryState:
                used = partial(self._ledger.used_as, device.id, state)
                gauge.labels(device.id, state.value).set_function(used)
        self.configure(policy or MemoryPolicy())

    @property
    def free(self) -> int:
        """The bytes that could be granted now; negative after models or neighbours grew."""
        return max(self._free.values())

    def has(self, count: int, among: int, *, besides: int = 0) -> bool:
        """Tell whether so many devices have so many bytes free, `besides` included."""
        return best_fit(self._free, count - besides, among) is not None

    def is_overdrawn(self, devices: tuple[str, ...]) -> bool:
        """Tell whether on one of the devices entries have more than there is for them."""
        return any(self._ledger.free(device) < 0 for device in devices)

    def gpus(self, devices: tuple[str, ...]) -> str:
        """Return what CUDA calls the devices; empty where there is nothing to choose from."""
        if not self.has_choice:
            return ""
        return ",".join(self._by_id[device].cuda_name for device in devices)

    @property
    def has_choice(self) -> bool:
        """Whether models may be loaded onto this device or onto that."""
        return len(self._loaded_into) > 1

    @property
    def is_short(self) -> bool:
        """Whether memory is so full that nothing is to be loaded for which nobody asks."""
        return all(self._monitor.level(device) in _SHORT for device in self._loaded_into)

    @property
    def reserving(self) -> int:
        """The bytes promised to models that are being loaded."""
        return sum(self._ledger.used_as(d, EntryState.RESERVED) for d in self._loaded_into)

    @property
    def _free(self) -> dict[str, int]:
        return {device: self._ledger.free(device) for device in self._loaded_into}

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
        before = self._free
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
        elif any(free > before[device] for device, free in self._free.items()):
            self.on_release()

    def _left_of(self, device: str, reading: Reading) -> int:
        ledger = self._ledger.used(device)
        return left_beside_neighbours(
            total=reading.total, used=reading.used, own=reading.own, ledger=ledger
        )

    @property
    def level(self) -> MemoryLevel | None:
        """How full the memory is that models are loaded into; None while nobody can tell."""
        return self.level_of(self._loaded_into)

    def level_of(self, devices: tuple[str, ...]) -> MemoryLevel | None:
        """Return how full the fullest of the devices is; None while nobody can tell."""
        known = (level for d in devices if (level := self._monitor.level(d)) is not None)
        return max(known, key=lambda level: level.rank, default=None)

    @property
    def levels(self) -> tuple[MemoryLevel | None, ...]:
        """The same of every device."""
        return tuple(self._monitor.level(device.id) for device in self._devices)

    def _set_budgets(self) -> None:
        for device in self._devices:
            total = self._totals[device.id]
            is_loaded_into = device.id in self._loaded_into
            share = self._policy.models if is_loaded_into else self._policy.host
            self._ledger.set_budget(device.id, total=total, budget=share.of(total))
        self._notify()

    def reserve(
        self, owner: str, footprint: Footprint, *, instead_of: str | None = None
    ) -> Reservation:
        """Reserve what a load takes; raises MemoryRefusedError.

        `instead_of` owns warm bytes of the same memory, which the load takes over.
        """
        needed, among = footprint.total, footprint.among
        free = self._free
        devices = best_fit(free, needed, among)
        if devices is None:
            free = {d: f for d, f in free.items() if self._ledger.budget(d) >= needed}
            if len(free) < among:
                self.check(footprint)  # which raises: that is what it asks
            devices = roomiest(free, among)
        decision = self._ledger.reserve(owner, devices, needed, instead_of=instead_of)
        match decision:
            case Granted():
                return Reservation(self, owner, devices, footprint)
            case NeverFits():
                raise never_fits(footprint, decision, whose=self._whose(devices))
            case MustWait():
                taken = {device: self._ledger.taken_by_neighbours(device) for device in devices}
                if all(needed <= free[device] + taken[device] for device in devices):
                    self._refused = min(needed, self._refused or needed)
                raise must_wait(
                    footprint,
                    decision,
                    self._lacking(free, needed, instead_of),
                    whose=self._whose(devices),
                    neighbours=taken[min(devices, key=free.__getitem__)],
                )

    def _lacking(self, free: dict[str, int], needed: int, instead_of: str | None) -> dict[str, int]:
        """Return what a load lacks of each device once all who are leaving have left."""
        lacking = {
            device: needed - left - self._ledger.used_as(device, EntryState.RELEASING)
            for device, left in free.items()
        }
        kept = None if instead_of is None else self._ledger.entry(instead_of)
        if kept is not None:
            for device in kept.devices:
                lacking[device] -= kept.bytes
        return lacking

    def _whose(self, devices: tuple[str, ...]) -> str:
        """Say whose budget it is."""
        return f"the {' and '.join(devices)}" if self.has_choice else "the pool's"

    def check(self, footprint: Footprint) -> None:
        """Raise MemoryRefusedError for what can never be reserved, whoever leaves."""
        budgets = {device: self._ledger.budget(device) for device in self._loaded_into}
        if footprint.among > len(budgets):
            raise too_few(footprint, len(budgets), min(budgets.values()))
        devices = roomiest(budgets, footprint.among)
        never = self._ledger.never_fits(min(devices, key=budgets.__getitem__), footprint.total)
        if never is not None:
            raise never_fits(footprint, never, whose=self._whose(devices))

    async def released_since(self, releases: int) -> None:
        """Wait until memory has been given back since `releases` was read."""
        while self._releases == releases:
            await self._released.wait()

    async def taken_by(
        self, devices: tuple[str, ...], pid: int, resident: int, estimated: int
    ) -> int:
        """Return what an engine's processes take of each of the devices, at the most."""
        asked = (self._by_id[device].taken_by(pid, resident, estimated) for device in devices)
        return max(await asyncio.gather(*asked))

    def commit(self, owner: str, taken: int) -> None:
        """Record what a loaded model takes."""
        self._ledger.commit(owner, taken)

    def begin_release(self, owner: str) -> None:
        """Mark an entry as on its way out."""
        self._ledger.begin_release(owner)

    def release(self, owner: str) -> None:
        """Take an entry's bytes back and wake whoever waits for memory."""
        self._ledger.release(owner)
        self._notify()

    def report(self) -> tuple[ReportedDevice, ...]:
        """Return every device as the pod's report shows it."""
        return tuple(self._reported(device) for device in self._devices)

    # What is kept warm ---------------------------------------------------------------------------

    @property
    def loads_into_host(self) -> bool:
        """Whether models are loaded into the very memory in which others are kept warm."""
        return self._host is not None and self._host.id in self._loaded_into

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
        if not isinstance(self._ledger.reserve(owner, (self._host.id,), count), Granted):
            return None
        return WarmBytes(self, owner, count)

    def keep_warm(self, owner: str, count: int) -> None:
        """Record what is really kept."""
        self._ledger.keep_warm(owner, count)

    def _warm_on(self, device: Device) -> int:
        """Return the bytes of a device that are kept warm, and mapped by no process."""
        return self._ledger.used_as(device.id, EntryState.WARM) if device is self._host else 0

    def _loaded_on(self, device: Device) -> int:
        """Return the bytes of a device that loaded models take."""
        return self._ledger.used_as(device.id, EntryState.COMMITTED)

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

    def _notify(self) -> None:
        self._releases += 1
        waiters, self._released = self._released, asyncio.Event()
        waiters.set()
        self.on_release()
