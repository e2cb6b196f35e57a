"""Circuit breakers: what fails again and again is left alone for a while, so nobody waits for it.

M. Nygard, "Release It!", 2007. One breaker for each thing that searches depend on.
"""

import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FAILURES: Final = 3
"""Failures in a row after which it is left alone."""
PAUSE_SECONDS: Final = 5.0
"""How long; then one request may try."""


class Dependency(StrEnum):
    """What searches depend on."""

    EMBEDDER = "embedder"
    RERANKER = "reranker"
    STORE = "store"


class Breaker:
    """Counts one dependency's failures. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._closed_at = 0.0
        self.last: Exception | None = None
        """The last failure, while it is not known to be over."""

    @property
    def is_open(self) -> bool:
        """Whether it is left alone."""
        return self._failures >= FAILURES

    def left(self) -> float:
        """Return for how many seconds it is not to be asked; 0: ask now, and tell what comes of it.

        After the pause that is 0 for one, who finds out for all others.
        """
        if not self.is_open:
            return 0.0
        left = self._closed_at - self._now()
        if left > 0:
            return left
        self._closed_at = self._now() + PAUSE_SECONDS
        return 0.0

    def failed(self, error: Exception) -> None:
        """Note that it did not do what it was asked, and might later."""
        self._failures += 1
        self._closed_at = self._now() + PAUSE_SECONDS
        self.last = error.with_traceback(None)

    def succeeded(self) -> None:
        """Note that it answered."""
        self._failures, self.last = 0, None


class Breakers(Collector):
    """All of a process's breakers, by what they are for; also their metric."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._all: dict[tuple[Dependency, str], Breaker] = {}

    def of(self, dependency: Dependency, name: str) -> Breaker:
        """Return the breaker of a model or a store."""
        return self._all.setdefault((dependency, name), Breaker(self._now))

    def describe(self) -> Iterator[Metric]:
        """Announce nothing; everything is read when it is asked for."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield which are open as of now."""
        opened = GaugeMetricFamily(
            "ullage_search_breaker_open",
            "Whether searches leave something alone, as it failed again and again.",
            labels=("dependency", "name"),
        )
        for (dependency, name), breaker in sorted(self._all.items()):
            opened.add_metric((dependency.value, name), breaker.is_open)
        yield opened
