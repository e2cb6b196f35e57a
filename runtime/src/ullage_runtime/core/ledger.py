"""The ledger: who has been promised, and who takes, how many bytes of which devices.

An entry is RESERVED while its model loads, COMMITTED once its true size is known, RELEASING while
its engine ends, and gone when the bytes are back. What is kept of a model that has left is WARM: it
is there for whoever needs the bytes, and a load of the same model may take them over. Nobody loads
without an entry, so the sum over a device never exceeds its budget by a promise; a model that grew
beyond its estimate may exceed it, and then nothing more is granted.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum


class EntryState(StrEnum):
    """How far an entry is."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    WARM = "warm"
    RELEASING = "releasing"


@dataclass(frozen=True, slots=True)
class Entry:
    """Bytes that one model generation has."""

    owner: str
    devices: tuple[str, ...]
    """One, or those among which the model is divided."""
    bytes: int
    """Of each of them."""
    state: EntryState


@dataclass(frozen=True, slots=True)
class Granted:
    """The bytes are reserved."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class NeverFits:
    """The request exceeds the whole budget; waiting does not help."""

    required: int
    budget: int
    total: int


@dataclass(frozen=True, slots=True)
class MustWait:
    """The request fits the budget once others have left."""

    required: int
    free: int
    """What could be granted, with what the request would take over."""
    budget: int


Decision = Granted | NeverFits | MustWait


class LedgerError(Exception):
    """A step that an entry's state does not allow: a bug in the caller."""


@dataclass(slots=True)
class _Device:
    total: int
    budget: int
    left: int | None = None
    """What neighbours leave of it; None where nobody knows of any."""
    used: int = 0
    """The bytes that entries have; kept, as each request for memory asks for them."""
    used_as: dict[EntryState, int] = field(default_factory=lambda: dict.fromkeys(EntryState, 0))
    """The same by state."""

    @property
    def free(self) -> int:
        most = self.budget if self.left is None else min(self.budget, self.left)
        return most - self.used


class Ledger:
    """The entries of every device; each method is one atomic step."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self._entries: dict[str, Entry] = {}

    def set_budget(self, device: str, *, total: int, budget: int) -> None:
        """Set what a device has and may be used of it; present entries stay as they are."""
        known = self._devices.setdefault(device, _Device(total, budget))
        known.total, known.budget = total, budget

    def set_left(self, device: str, left: int | None) -> None:
        """Set what neighbours leave of a device to entries, present ones included."""
        self._devices[device].left = left

    def budget(self, device: str) -> int:
        """Return a device's budget, in bytes."""
        return self._devices[device].budget

    def used(self, device: str) -> int:
        """Return the bytes of a device that entries of any state have."""
        return self._devices[device].used

    def used_as(self, device: str, state: EntryState) -> int:
        """Return the bytes of a device that entries of one state have."""
        return self._devices[device].used_as[state]

    def free(self, device: str) -> int:
        """Return the bytes that could be granted now; negative after models or neighbours grew."""
        return self._devices[device].free

    def taken_by_neighbours(self, device: str) -> int:
        """Return the bytes of a device's budget that neighbours take."""
        known = self._devices[device]
        return 0 if known.left is None else max(0, known.budget - known.left)

    def entry(self, owner: str) -> Entry | None:
        """Return an owner's entry, or None."""
        return self._entries.get(owner)

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry."""
        return tuple(self._entries.values())

    def never_fits(self, device: str, count: int) -> NeverFits | None:
        """Say why so many bytes of a device can never be promised, or None if they can."""
        known = self._devices[device]
        if count <= known.budget:
            return None
        return NeverFits(required=count, budget=known.budget, total=known.total)

    def reserve(
        self, owner: str, devices: tuple[str, ...], count: int, *, instead_of: str | None = None
    ) -> Decision:
        """Promise bytes of each of the devices to an owner that has none, or say why not.

        `instead_of` is an owner whose warm bytes of the devices are taken over: its entry ends with
        the grant, and stays as it is without one. One that has no entry any more gives nothing.
        """
        if owner in self._entries:
            raise LedgerError(f"{owner} already has an entry")
        before = None if instead_of is None else self._entries.get(instead_of)
        if before is not None and (before.state, before.devices) != (EntryState.WARM, devices):
            raise LedgerError(f"{instead_of} has nothing warm on {', '.join(devices)}")
        smallest = min(devices, key=self.budget)
        never = self.never_fits(smallest, count)
        if never is not None:
            return never
        tightest = min(devices, key=self.free)
        free = self.free(tightest) + (0 if before is None else before.bytes)
        if count > free:
            return MustWait(required=count, free=free, budget=self.budget(tightest))
        if before is not None:
            self.release(before.owner)
        entry = Entry(owner=owner, devices=devices, bytes=count, state=EntryState.RESERVED)
        self._put(entry)
        return Granted(entry)

    def commit(self, owner: str, actual: int) -> None:
        """Replace an estimate by what was measured; also for later measurements."""
        entry = self._of(owner)
        if entry.state in {EntryState.WARM, EntryState.RELEASING}:
            raise LedgerError(f"{owner} cannot be committed: it is {entry.state}")
        self._put(replace(entry, bytes=actual, state=EntryState.COMMITTED))

    def keep_warm(self, owner: str, actual: int) -> None:
        """Note that so many bytes are kept of what has left; also when they become fewer."""
        entry = self._of(owner)
        if entry.state is EntryState.RELEASING:
            raise LedgerError(f"{owner} is being released")
        self._put(replace(entry, bytes=actual, state=EntryState.WARM))

    def begin_release(self, owner: str) -> None:
        """Note that an owner is about to give its bytes back; they count until it has."""
        entry = self._of(owner)
        if entry.state is EntryState.RELEASING:
            raise LedgerError(f"{owner} is already being released")
        self._put(replace(entry, state=EntryState.RELEASING))

    def release(self, owner: str) -> int:
        """Take an owner's bytes back, from any state; return how many of each device they were."""
        entry = self._entries.pop(self._of(owner).owner)
        self._count(entry, -entry.bytes)
        return entry.bytes

    def _put(self, entry: Entry) -> None:
        before = self._entries.get(entry.owner)
        if before is not None:
            self._count(before, -before.bytes)
        self._entries[entry.owner] = entry
        self._count(entry, entry.bytes)

    def _count(self, entry: Entry, change: int) -> None:
        for device in entry.devices:
            known = self._devices[device]
            known.used += change
            known.used_as[entry.state] += change

    def _of(self, owner: str) -> Entry:
        entry = self._entries.get(owner)
        if entry is None:
            raise LedgerError(f"{owner} has no entry")
        return entry
