"""The monitor: what the devices were last read to be, and the levels that follow from it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.levels import Standing, Thresholds, next_standing
from ullage_runtime.governor.devices import Device, DeviceError, Reading

STALE_SECONDS: Final = 30.0
"""Age from which a reading is believed no more."""

NOTICED_BYTES: Final = 64 << 20
"""What cannot leave without what is in use changing."""

_log = structlog.get_logger(__name__)


class Monitor:
    """Reads devices again and again; a device that cannot be read soon has no level.

    Neither has one whose driver repeats itself: what left long ago would pass for a neighbour's.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        kept: Callable[[Device], int],
        loaded: Callable[[Device], int],
    ) -> None:
        """Take what the ledger knows of a device's bytes.

        `kept` returns those that are ours although no process maps them, `loaded` those that loaded
        models take.
        """
        self._devices = tuple(devices)
        self._kept = kept
        self._loaded = loaded
        self._moved: dict[str, tuple[int, int]] = {}
        """What was in use and what was loaded when the former last changed."""
        self._readings: dict[str, Reading] = {}
        self._read_at: dict[str, float] = {}
        self._standings: dict[str, Standing] = {}
        self._failing: set[str] = set()
        self.thresholds = Thresholds()

    async def sample(self, now: float) -> None:
        """Read every device, all at once; `now` is on the monotonic clock."""
        await asyncio.gather(*(self._sample(device, now) for device in self._devices))

    def reading(self, device: str) -> Reading | None:
        """Return a device's last reading, or None before the first and after a long silence."""
        return self._readings.get(device)

    def level(self, device: str) -> MemoryLevel | None:
        """Return a device's level, or None while there is no reading to tell it from."""
        standing = self._standings.get(device)
        return standing.level if standing is not None else None

    async def _sample(self, device: Device, now: float) -> None:
        try:
            reading = await device.read()
        except DeviceError as error:
            self._miss(device.id, str(error), now)
            return
        if self._repeats_itself(device, reading):
            why = "the driver repeats its numbers, although models have left"
            self._miss(device.id, why, now)
            return
        if device.id in self._failing:
            self._failing.discard(device.id)
            _log.info("device.readable_again", device=device.id)
        reading = self._with_kept(device, reading)
        self._readings[device.id], self._read_at[device.id] = reading, now
        before = self._standings.get(device.id, Standing())
        share = reading.used / max(1, reading.total)
        standing = next_standing(before, share, now, self.thresholds)
        self._standings[device.id] = standing
        if standing.level is not before.level:
            _log.info(
                "device.level",
                device=device.id,
                level=standing.level.value,
                before=before.level.value,
                used=reading.used,
                total=reading.total,
            )

    def _repeats_itself(self, device: Device, reading: Reading) -> bool:
        """Tell whether what is in use stayed the same to the byte although models left.

        Where the driver knows our processes it matters not: both numbers stand still.
        """
        loaded = self._loaded(device)
        used, before = self._moved.get(device.id, (None, loaded))
        if used != reading.used:
            self._moved[device.id] = reading.used, loaded
            return False
        return reading.own is None and reading.used >= before >= loaded + NOTICED_BYTES

    def _with_kept(self, device: Device, reading: Reading) -> Reading:
        """Return a reading with what is ours besides processes: in use is at least all of ours."""
        kept = self._kept(device)
        if reading.own is None or not kept:
            return reading
        own = reading.own + kept
        return replace(reading, own=own, used=max(reading.used, min(own, reading.total)))

    def _miss(self, device: str, why: str, now: float) -> None:
        if device not in self._failing:
            self._failing.add(device)
            _log.warning("device.unreadable", device=device, why=why)
        if now - self._read_at.get(device, float("-inf")) >= STALE_SECONDS:
            self._readings.pop(device, None)
            self._standings.pop(device, None)
