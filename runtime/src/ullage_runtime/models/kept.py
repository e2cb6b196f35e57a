"""One cache of this process: it knows the time, and counts what became of each lookup."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

from ullage_runtime.core.cache import Cache, CacheKey

V = TypeVar("V")


class Outcome(StrEnum):
    """What became of looking for something."""

    HIT = "hit"
    """It was kept."""
    DISK = "disk"
    """It was kept, on disk."""
    SHARED = "shared"
    """It was being computed for another request, whose result serves both."""
    MISS = "miss"
    """It had to be computed."""


class Kept(Generic[V]):
    """One cache, which knows the time and counts what is looked for."""

    def __init__(self, name: str, max_bytes: int, now: Callable[[], float]) -> None:
        self.name = name
        self.cache: Cache[V] = Cache(max_bytes)
        self.lookups: Counter[tuple[str, Outcome]] = Counter()
        """How often, by model and outcome."""
        self._now = now

    def find(self, key: CacheKey) -> V | None:
        """Return what is kept, if it is; the caller counts what comes of it."""
        return self.cache.get(key, self._now())

    def keep(self, key: CacheKey, value: V, size: int, seconds: float) -> bool:
        """Keep a value of so many bytes for so long; False when there is no room for it."""
        return self.cache.put(key, value, size, self._now() + seconds)

    def count(self, model: str, outcome: Outcome, times: int = 1) -> None:
        """Take note of what became of looking for something."""
        if times:
            self.lookups[model, outcome] += times
