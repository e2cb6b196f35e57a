"""The caches of one process: of texts' vectors, chats' answers and searches, for whoever asked."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.cache import CacheKey, Size
from ullage_runtime.core.domain import Chunk
from ullage_runtime.models.kept import Kept, Outcome
from ullage_runtime.models.shared_embeddings import SharedEmbeddings
from ullage_runtime.models.shelf import Shelf, Vector


@dataclass(frozen=True, slots=True)
class KeptSearch:
    """A search's answer, and the last change of the collection that it has seen."""

    version: int
    body: bytes


class Caches(Collector):
    """All of them, and what is done with them together; also their metrics.

    Of 0 bytes, as by default, nothing is kept. `shelf` has vectors on disk, too. `now` is a
    monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        embeddings_bytes: int = 0,
        embeddings_seconds: float = 0.0,
        answers_bytes: int = 0,
        searches_bytes: int = 0,
        shelf: Shelf | None = None,
        registry: CollectorRegistry | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        vectors: Kept[Vector] = Kept("embeddings", embeddings_bytes, now)
        self.answers: Kept[tuple[Chunk, ...]] = Kept("answers", answers_bytes, now)
        self.shelf = shelf
        self.embeddings = SharedEmbeddings(vectors, embeddings_seconds, shelf)
        self.searches: Kept[KeptSearch] = Kept("searches", searches_bytes, now)
        self.all: tuple[Kept[Any], ...] = (vectors, self.answers, self.searches)
        self._named = {each.name: each for each in self.all}
        if registry is not None:
            registry.register(self)

    def named(self, name: str) -> Kept[Any]:
        """Return a cache by its name; raises KeyError for one that there is not."""
        return self._named[name]

    def fit(self, level: MemoryLevel | None) -> None:
        """Take as much memory as its level leaves: a quarter at High, nothing at Critical."""
        for each in self.all:
            each.cache.fit(level)

    async def clear(
        self,
        name: str | None = None,
        *,
        model: str | None = None,
        tenant: str | None = None,
    ) -> Size:
        """Forget what is kept, or only what is of one cache, model or tenant; return how much.

        What is on disk and in memory counts twice.
        """
        cleared = self._clear(name, model, tenant)
        if self.shelf is not None and name in (None, "embeddings"):
            cleared.append(await self.shelf.clear(model=model, tenant=tenant))
        return Size(sum(c.entries for c in cleared), sum(c.bytes for c in cleared))

    def _clear(
        self, name: str | None = None, model: str | None = None, tenant: str | None = None
    ) -> list[Size]:
        def is_meant(key: CacheKey) -> bool:
            return model in (None, key.model) and tenant in (None, key.tenant)

        return [each.cache.clear(is_meant) for each in self.all if name in (None, each.name)]

    def forget(self, model: str) -> None:
        """Forget a model that is gone, and what was counted of it."""
        self._clear(model=model)
        if self.shelf is not None:
            self.shelf.forget(model)
        for each in self.all:
            for outcome in Outcome:
                del each.lookups[model, outcome]

    async def close(self) -> None:
        """Let go of what is on disk; idempotent."""
        if self.shelf is not None:
            await self.shelf.close()

    def describe(self) -> Iterator[Metric]:
        """Announce nothing; everything is read when it is asked for."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the caches' metrics as of now."""
        held = GaugeMetricFamily(
            "ullage_cache_bytes", "Bytes of a cache.", labels=("cache", "what")
        )
        entries = GaugeMetricFamily(
            "ullage_cache_entries", "Entries that a cache holds.", labels=("cache",)
        )
        lookups = CounterMetricFamily(
            "ullage_cache_lookups",
            "What was looked for in a cache, by what became of it.",
            labels=("cache", "model", "outcome"),
        )
        for each in self.all:
            size = each.cache.size
            held.add_metric((each.name, "held"), size.bytes)
            held.add_metric((each.name, "limit"), each.cache.limit_bytes)
            entries.add_metric((each.name,), size.entries)
            for (model, outcome), times in sorted(each.lookups.items()):
                lookups.add_metric((each.name, model, outcome), times)
        if self.shelf is not None:
            held.add_metric(("embeddings", "disk"), self.shelf.bytes)
            held.add_metric(("embeddings", "disk_limit"), self.shelf.max_bytes)
        yield from (held, entries, lookups)
