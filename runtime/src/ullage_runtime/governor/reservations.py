"""Reservations: what a load or a kept copy has of the ledger, from the promise to its return."""

from typing import Protocol

from ullage_runtime.core.domain import EngineStats, Footprint
from ullage_runtime.engines.base import Engine


class Accounts(Protocol):
    """The ledger, as whoever has something of it knows it."""

    def commit(self, owner: str, taken: int) -> None:
        """Record what a loaded model takes."""
        ...

    def keep_warm(self, owner: str, count: int) -> None:
        """Record what is really kept."""
        ...

    def begin_release(self, owner: str) -> None:
        """Mark an entry as on its way out."""
        ...

    def release(self, owner: str) -> None:
        """Take an entry's bytes back."""
        ...

    def is_overdrawn(self, devices: tuple[str, ...]) -> bool:
        """Tell whether on one of the devices entries have more than there is for them."""
        ...

    def gpus(self, devices: tuple[str, ...]) -> str:
        """Return what CUDA calls the devices; empty where there is nothing to choose from."""
        ...

    async def taken_by(
        self, devices: tuple[str, ...], pid: int, resident: int, estimated: int
    ) -> int:
        """Return what an engine's processes take of each of the devices, at the most."""
        ...


class Reservation:
    """A generation's entry in the ledger; released exactly once, whoever asks how often."""

    def __init__(
        self, governor: Accounts, owner: str, devices: tuple[str, ...], footprint: Footprint
    ) -> None:
        self._governor = governor
        self._over = False
        self._leaving = False
        self.owner = owner
        self.devices = devices
        self.footprint = footprint
        self.bytes = footprint.total
        """What it has of each of its devices."""
        self.stats: EngineStats | None = None
        """What the engine said of itself when it was last measured."""

    @property
    def total(self) -> int:
        """What it has of all its devices together."""
        return self.bytes * len(self.devices)

    @property
    def expected(self) -> int:
        """What it was expected to take of all its devices together."""
        return self.footprint.total * len(self.devices)

    @property
    def is_overdrawn(self) -> bool:
        """Whether one of its devices has less than was promised of it."""
        return self._governor.is_overdrawn(self.devices)

    @property
    def gpus(self) -> str:
        """What an engine is told so that it sees no other GPUs; empty where it has no choice."""
        return self._governor.gpus(self.devices)

    async def measure(self, engine: Engine) -> int:
        """Replace the estimate, or the last measurement, by what the engine takes now."""
        self.stats = stats = await engine.stats()
        taken = await self._governor.taken_by(
            self.devices, engine.pid, stats.resident_bytes, self.footprint.total
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

    def __init__(self, governor: Accounts, owner: str, count: int) -> None:
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
