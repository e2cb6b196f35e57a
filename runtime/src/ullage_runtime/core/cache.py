"""A cache within bytes: what was used least recently leaves first."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ullage_api.kinds.memory import MemoryLevel

ENTRY_BYTES: Final = 512
"""What an entry takes beside its value: its key, its place in the order, and Python's objects."""

SHARES: Final = {MemoryLevel.HIGH: 0.25, MemoryLevel.CRITICAL: 0.0}
"""How much of its bytes a cache may have while memory is short; at other levels all of them."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Whose entry of which model's revision it is, and the digest of what was asked."""

    tenant: str
    model: str
    revision: str
    asked: bytes


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of something."""

    entries: int
    bytes: int


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    size: int
    expires: float


class Cache(Generic[V]):
    """Entries within so many bytes; those that were used least recently leave first.

    Times are seconds on one monotonic clock, which the caller reads. With 0 bytes nothing is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.limit_bytes = max_bytes
        """What it may have now: less than `max_bytes` while memory is short."""
        self._entries: OrderedDict[CacheKey, _Entry[V]] = OrderedDict()
        self._bytes = 0

    @property
    def size(self) -> Size:
        """What it holds, expired entries that nobody has asked for included."""
        return Size(len(self._entries), self._bytes)

    def get(self, key: CacheKey, now: float) -> V | None:
        """Return a value that has not expired, which is now the one used most recently."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: CacheKey, value: V, size: int, expires: float) -> bool:
        """Keep a value of so many bytes until a time; False for one that is larger than the cache.

        Others leave for it.
        """
        if key in self._entries:
            self._drop(key)
        size += ENTRY_BYTES
        if size > self.limit_bytes:
            return False
        self._entries[key] = _Entry(value, size, expires)
        self._bytes += size
        self._trim()
        return True

    def fit(self, level: MemoryLevel | None) -> None:
        """Take as much room as the memory's level leaves it; None: nobody knows how full it is."""
        share = 1.0 if level is None else SHARES.get(level, 1.0)
        self.limit_bytes = int(self.max_bytes * share)
        self._trim()

    def clear(self, is_meant: Callable[[CacheKey], bool]) -> Size:
        """Forget the entries that are meant; return how much that was."""
        before = self.size
        for key in [key for key in self._entries if is_meant(key)]:
            self._drop(key)
        return Size(before.entries - self.size.entries, before.bytes - self.size.bytes)

    def _trim(self) -> None:
        while self._bytes > self.limit_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: CacheKey) -> None:
        self._bytes -= self._entries.pop(key).size
