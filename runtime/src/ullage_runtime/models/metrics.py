"""Metrics of what happens to models, counted where it happens."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ullage_runtime.models.engine_metrics import EngineMetrics

_LOAD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PROMOTE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RATIOS = (0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0)


class ModelMetrics:
    """Counters and histograms of one pool's models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.restarts = Counter(
            "ullage_worker_deaths", "Engine processes that died.", ["model"], registry=registry
        )
        self.load_seconds = Histogram(
            "ullage_model_load_seconds",
            "From the file in the cache to the model answering.",
            ["model"],
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self.promote_seconds = Histogram(
            "ullage_model_promote_seconds",
            "From what host memory keeps of a model to the model answering.",
            ["model"],
            buckets=_PROMOTE_SECONDS,
            registry=registry,
        )
        self.load_failures = Counter(
            "ullage_model_load_failures",
            "Loads that failed, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.estimate_ratio = Histogram(
            "ullage_model_estimate_ratio",
            "Measured bytes of a loaded model over its estimate.",
            buckets=_RATIOS,
            registry=registry,
        )
        self.leases = Gauge(
            "ullage_leases", "Requests that hold a generation.", ["model"], registry=registry
        )
        self.engines = EngineMetrics(registry)
        self.batch_paused = Gauge(
            "ullage_batch_paused",
            "1 while memory is critical, and batch work makes way.",
            registry=registry,
        )
        self.batch_waiting = Gauge(
            "ullage_batch_requests_waiting",
            "Requests of batch work that wait until memory is not critical any more.",
            registry=registry,
        )
        self.batch_preemptions = Counter(
            "ullage_batch_preemptions",
            "Requests of batch work that were broken off to be computed anew later.",
            registry=registry,
        )

        self.evictions = Counter(
            "ullage_evictions", "Models that left memory.", ["model", "rule"], registry=registry
        )
        self.evicted_bytes = Counter(
            "ullage_evicted_bytes", "Bytes that models which left gave back.", registry=registry
        )
        self.refusals = Counter(
            "ullage_memory_refusals",
            "Loads that got no memory.",
            ["model", "rule"],
            registry=registry,
        )
        self.overshoots = Counter(
            "ullage_load_overshoots",
            "Loads that took more than was free and were begun again with what they really take.",
            ["model"],
            registry=registry,
        )

    def forget(self, model: str) -> None:
        """Drop the series of a model that is gone; its counters would otherwise stay forever."""
        timed = (self.load_seconds, self.promote_seconds)
        for metric in (self.restarts, *timed, self.leases, self.overshoots):
            try:
                metric.remove(model)
            except KeyError:
                continue  # it never had one
        self.engines.forget(model)
