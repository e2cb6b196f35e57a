"""Metrics of searches, counted where they happen."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

TOTAL: Final = "total"
"""Stage that is all of them together."""
RECENT_SECONDS: Final = 5.0
"""What "of late" means where much is searched."""
LEAST_RECENT: Final = 20
"""Searches that are told of where there are fewer in that time."""
RECENT_LIMIT_SECONDS: Final = 30.0
"""How old they may be."""
MOST_RECENT: Final = 1000
_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class RetrievalMetrics:
    """Histograms of the collections of one pod."""

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._recent: dict[str, deque[tuple[float, float]]] = {}
        self._search_seconds = Histogram(
            "ullage_search_seconds",
            "Seconds that each stage of a search took.",
            ("collection", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )

    def searched(self, collection: str, seconds: Mapping[str, float]) -> None:
        """Take note of a search, by its stages."""
        for stage, took in seconds.items():
            self._search_seconds.labels(collection, stage).observe(took)
        total = sum(seconds.values())
        self._search_seconds.labels(collection, TOTAL).observe(total)
        recent = self._recent.setdefault(collection, deque(maxlen=MOST_RECENT))
        recent.append((self._clock(), total))

    def recent(self, collection: str) -> tuple[int, float | None]:
        """Return how many searches there were of late, and what 95 % of them did not exceed."""
        now, kept = self._clock(), self._recent.get(collection, ())
        known = [(at, s) for at, s in kept if now - at <= RECENT_LIMIT_SECONDS]
        fresh = sum(now - at <= RECENT_SECONDS for at, _ in known)
        took = sorted(s for _, s in known[-max(fresh, LEAST_RECENT) :])
        return len(took), took[math.ceil(0.95 * len(took)) - 1] if took else None

    def forget(self, collection: str) -> None:
        """Drop the series of a collection that is gone."""
        self._recent.pop(collection, None)
        self._search_seconds.remove_by_labels({"collection": collection})
