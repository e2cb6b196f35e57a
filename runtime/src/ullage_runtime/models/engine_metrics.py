"""Metrics of what engines do, read from their own counts when somebody asks for metrics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ullage_runtime.core.domain import WIDTHS, EngineStats

NOTHING: Final = EngineStats(resident_bytes=0)

_GAUGES: Final = {
    "ullage_requests_running": "Generations that are being computed, preempted ones included.",
    "ullage_requests_waiting": "Requests that wait for a model, and generations that wait in it.",
    "ullage_kv_cache_usage": "Share of the key-value cache that running generations hold.",
}
_COUNTERS: Final = {
    "steps": ("ullage_engine_steps", "Steps, each of which computes a batch."),
    "preemptions": (
        "ullage_preemptions",
        "Times that a generation left its place in the cache to others, to go on later.",
    ),
    "prompt_tokens": ("ullage_engine_prompt_tokens", "Tokens of prompts that were computed."),
    "generated_tokens": ("ullage_engine_generated_tokens", "Tokens that were generated."),
    "prefix_tokens": (
        "ullage_prefix_cache_hit_tokens",
        "Tokens of prompts that had not to be computed, as a cached prefix had them.",
    ),
}
_WIDTH: Final = ("ullage_batch_width", "Generations in a step.")


@dataclass(slots=True)
class _Model:
    """One model's counts, over all the engines it has had."""

    engine: str = ""
    """The engine that the latest counts are of."""
    before: EngineStats = NOTHING
    """Counts of the engines before that one."""
    latest: EngineStats = NOTHING
    held: int = 0
    """Requests that wait outside the engine."""
    is_loaded: bool = False

    @property
    def total(self) -> EngineStats:
        """Counts since the start."""
        return _sum(self.before, self.latest)


class EngineMetrics(Collector):
    """What the engines of every model of a pod have done, as they last told."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._models: dict[str, _Model] = {}
        registry.register(self)

    def working(self, name: str, engine: str, stats: EngineStats, *, held: int) -> None:
        """Take note of what a model's engine tells; another engine counts from zero again."""
        model = self._models.setdefault(name, _Model())
        if model.engine != engine:
            model.before, model.engine = model.total, engine
        model.latest, model.held, model.is_loaded = stats, held, True

    def resting(self, name: str, *, held: int) -> None:
        """Take note that a model is not loaded."""
        model = self._models.setdefault(name, _Model())
        model.held, model.is_loaded = held, False

    def generated(self, name: str) -> int:
        """Return how many tokens a model's engines have generated, as they last told."""
        model = self._models.get(name)
        return model.total.generated_tokens if model is not None else 0

    def forget(self, name: str) -> None:
        """Drop the series of a model that is gone."""
        self._models.pop(name, None)

    def describe(self) -> Iterator[Metric]:
        """Announce nothing: which models there are is known only later."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all models."""
        gauges = {
            name: GaugeMetricFamily(name, text, labels=("model",)) for name, text in _GAUGES.items()
        }
        counters = {
            key: CounterMetricFamily(*named, labels=("model",)) for key, named in _COUNTERS.items()
        }
        widths = HistogramMetricFamily(*_WIDTH, labels=("model",))
        for name, model in sorted(self._models.items()):
            now = model.latest if model.is_loaded else NOTHING
            values = (
                now.requests_running,
                now.requests_waiting + model.held,
                now.kv_cells_running / max(1, now.kv_cells),
            )
            for gauge, value in zip(gauges.values(), values, strict=True):
                gauge.add_metric((name,), value)
            total = model.total
            for key, counter in counters.items():
                counter.add_metric((name,), getattr(total, key))
            widths.add_metric((name,), _buckets(total), total.step_widths)
        yield from (*gauges.values(), *counters.values(), widths)


def _buckets(stats: EngineStats) -> list[tuple[str, float]]:
    """Return a histogram's buckets as Prometheus has them: each with all that are below it."""
    counts = accumulate(_by_width(stats))
    bounds = (*map(floatToGoString, WIDTHS), "+Inf")
    return [(bound, float(count)) for bound, count in zip(bounds, counts, strict=True)]


def _by_width(stats: EngineStats) -> tuple[int, ...]:
    return stats.steps_by_width or (0,) * (len(WIDTHS) + 1)


def _sum(one: EngineStats, other: EngineStats) -> EngineStats:
    added = {key: getattr(one, key) + getattr(other, key) for key in (*_COUNTERS, "step_widths")}
    pairs = zip(_by_width(one), _by_width(other), strict=True)
    return replace(NOTHING, **added, steps_by_width=tuple(a + b for a, b in pairs))
