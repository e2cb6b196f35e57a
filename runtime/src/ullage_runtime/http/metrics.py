"""Prometheus metrics of one process: counted where things happen, or read from the pod's report."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.wire.pod_report import CollectionState, PodReport

STEP_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1),
    *(0.15, 0.25, 0.4, 0.6, 1, 2.5, 5),
)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ReportCollector(Collector):
    """Turns the pod's report into metrics when they are asked for."""

    def __init__(self, report: Callable[[], PodReport]) -> None:
        self._report = report

    def describe(self) -> Iterator[Metric]:
        """Announce nothing: the report may not be there yet when the registry asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the report as of now."""
        report = self._report()
        yield from _device_metrics(report)
        yield from _model_metrics(report)
        yield from _collection_metrics(report)
        yield from _reindex_metrics(report)


def _device_metrics(report: PodReport) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "ullage_device_bytes", "Bytes of a device's memory.", labels=("device", "what")
    )
    for device in report.devices:
        family.add_metric((device.id, "total"), device.total_bytes)
        family.add_metric((device.id, "budget"), device.budget_bytes)
        family.add_metric((device.id, "used"), device.used_bytes)
        family.add_metric((device.id, "ledger"), device.ledger_bytes)
        if device.own_bytes is not None:
            family.add_metric((device.id, "own"), device.own_bytes)
    yield family
    yield from _strain_metrics(report)


def _strain_metrics(report: PodReport) -> Iterator[Metric]:
    level = GaugeMetricFamily(
        "ullage_device_level", "1 for how full a device's memory is.", labels=("device", "level")
    )
    throttled = GaugeMetricFamily(
        "ullage_device_throttled",
        "1 for why a device runs slower than it could; absent otherwise.",
        labels=("device", "reason"),
    )
    stalled = GaugeMetricFamily(
        "ullage_device_stalled_ratio",
        "Share of the last 10 s in which some process waited for memory (PSI).",
        labels=("device",),
    )
    for device in report.devices:
        for word in MemoryLevel if device.level is not None else ():
            level.add_metric((device.id, word), float(device.level == word))
        for reason in device.throttling:
            throttled.add_metric((device.id, reason), 1)
        if device.stalled is not None:
            stalled.add_metric((device.id,), device.stalled)
    yield from (level, throttled, stalled)


def _model_metrics(report: PodReport) -> Iterator[Metric]:
    residency = GaugeMetricFamily(
        "ullage_model_residency", "1 for where a model's weights are.", labels=("model", "where")
    )
    resident = GaugeMetricFamily(
        "ullage_model_resident_bytes", "Measured bytes of a loaded model.", labels=("model",)
    )
    host = GaugeMetricFamily(
        "ullage_model_host_bytes",
        "Bytes that host memory keeps of a model for its return.",
        labels=("model",),
    )
    restarts = GaugeMetricFamily(
        "ullage_model_restarts", "Recent deaths of a model's engine process.", labels=("model",)
    )
    for model in report.models:
        for where in Residency:
            residency.add_metric((model.name, where), float(model.residency == where))
        held = model.active.resident_bytes if model.active else None
        resident.add_metric((model.name,), float(held or 0))
        host.add_metric((model.name,), model.host_bytes)
        restarts.add_metric((model.name,), model.restarts)
    yield from (residency, resident, host, restarts)


_COLLECTION_GAUGES: Final = {
    "points": ("ullage_collection_points", "Points that can be found."),
    "documents": ("ullage_collection_documents", "Documents that were taken in."),
    "indexed_vectors": ("ullage_collection_indexed_vectors", "Vectors in the index."),
    "pending_changes": (
        "ullage_collection_pending_changes",
        "Accepted changes that the store has yet to see.",
    ),
    "deferred_points": (
        "ullage_collection_deferred_points",
        "Points that no search finds before they are optimised.",
    ),
    "is_indexed": ("ullage_collection_indexed", "1 where the store has nothing left to build."),
}
"""What a report says of a collection, by its fields."""


def _collection_metrics(report: PodReport) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "ullage_collection_state", "1 for how a collection stands.", labels=("collection", "state")
    )
    recall = GaugeMetricFamily(
        "ullage_collection_recall_ratio",
        "Share of the nearest points that searches found of late.",
        labels=("collection",),
    )
    for collection in report.collections:
        for word in CollectionState:
            state.add_metric((collection.name, word), float(collection.state == word))
        if collection.recall_percent is not None:
            recall.add_metric((collection.name,), collection.recall_percent / 100)
    yield from (state, recall)
    for field, (name, says) in _COLLECTION_GAUGES.items():
        family = GaugeMetricFamily(name, says, labels=("collection",))
        for collection in report.collections:
            value = getattr(collection, field)
            if value is not None:
                family.add_metric((collection.name,), float(value))
        yield family


def _reindex_metrics(report: PodReport) -> Iterator[Metric]:
    names = ("job", "collection")
    phase = GaugeMetricFamily(
        "ullage_reindex_phase", "1 for what a reindex job does.", labels=(*names, "phase")
    )
    points = GaugeMetricFamily(
        "ullage_reindex_points",
        "Points, or documents that are cut anew, of a reindex job.",
        labels=(*names, "what"),
    )
    rate = GaugeMetricFamily(
        "ullage_reindex_points_per_second", "How fast a reindex job copies.", labels=names
    )
    for job in report.reindexes:
        labels = (job.name, job.collection)
        for word in ReindexPhase:
            phase.add_metric((*labels, word), float(job.phase is word))
        points.add_metric((*labels, "total"), float(job.points.total or 0))
        points.add_metric((*labels, "copied"), float(job.points.copied))
        points.add_metric((*labels, "caught_up"), float(job.points.caught_up))
        points.add_metric((*labels, "failed"), float(job.points.failed))
        rate.add_metric(labels, float(job.rate or 0))
    yield from (phase, points, rate)


class Metrics:
    """What HTTP counts, and the one registry of the process that others count in too."""

    def __init__(
        self, registry: CollectorRegistry, report: Callable[[], PodReport], version: str
    ) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        registry.register(ReportCollector(report))
        build = Gauge("ullage_build", "1, labelled.", ("version",), registry=self.registry)
        build.labels(version).set(1)
        self._requests = Counter(
            "ullage_http_requests",
            "Requests answered.",
            ("surface", "method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ullage_http_request_seconds",
            "Seconds from a request's first byte to its answer's last.",
            ("surface", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "ullage_http_requests_in_flight", "Requests worked on.", registry=self.registry
        )
        self._first_token = Histogram(
            "ullage_time_to_first_token_seconds",
            "Seconds from a request's arrival to its first token, queue included.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._between_tokens = Histogram(
            "ullage_inter_token_latency_seconds",
            "Seconds between the steps that add to a generation.",
            ("model",),
            buckets=STEP_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "ullage_tokens",
            "Tokens of answered requests.",
            ("model", "kind"),
            registry=self.registry,
        )
        self._generations = Counter(
            "ullage_generations",
            "Generations, by how they ended.",
            ("model", "outcome"),
            registry=self.registry,
        )
        self._forwarded = Counter(
            "ullage_forwarded_requests",
            "Requests forwarded to another pod, by outcome.",
            ("outcome",),
            registry=self.registry,
        )

        self._stored = Gauge(
            "ullage_stored_responses", "Responses stored by this pod.", registry=self.registry
        )
        self._stored_bytes = Gauge(
            "ullage_stored_responses_bytes", "Bytes they take.", registry=self.registry
        )
        self._rate_limited = Counter(
            "ullage_rate_limited_requests",
            "Requests refused because their key had used up its budget.",
            ("model",),
            registry=self.registry,
        )

    def request(self, surface: str, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in {"GET", "POST", "PUT", "DELETE", "OPTIONS"} else "other"
        self._requests.labels(surface, known, route, str(status)).inc()
        self._seconds.labels(surface, route).observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """Record how long a request waited for its first token."""
        self._first_token.labels(model).observe(seconds)

    def between_tokens(self, model: str) -> Histogram:
        """Return what records the time between a model's tokens, looked up once per request."""
        return self._between_tokens.labels(model)

    def tokens(self, model: str, prompt: int, completion: int) -> None:
        """Count a finished generation's tokens."""
        self._tokens.labels(model, "prompt").inc(prompt)
        self._tokens.labels(model, "completion").inc(completion)

    def generation(self, model: str, outcome: str) -> None:
        """Count one generation by how it ended."""
        self._generations.labels(model, outcome).inc()

    def forwarded(self, outcome: str) -> None:
        """Count one forwarded request by outcome."""
        self._forwarded.labels(outcome).inc()

    def stored(self, count: int, size: int) -> None:
        """Take note of how much is stored, in responses and in bytes."""
        self._stored.set(count)
        self._stored_bytes.set(size)

    def rate_limited(self, model: str) -> None:
        """Count one request that its key's budget did not allow."""
        self._rate_limited.labels(model).inc()

    def text(self) -> bytes:
        """Return the exposition in Prometheus' text format."""
        return generate_latest(self.registry)
