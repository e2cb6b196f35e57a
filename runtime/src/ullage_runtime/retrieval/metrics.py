"""Metrics of searches, counted where they happen."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

TOTAL: Final = "total"
"""Stage that is all of them together."""
_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


class RetrievalMetrics:
    """Histograms of the collections of one pod."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
        self._search_seconds.labels(collection, TOTAL).observe(sum(seconds.values()))

    def forget(self, collection: str) -> None:
        """Drop the series of a collection that is gone."""
        self._search_seconds.remove_by_labels({"collection": collection})
