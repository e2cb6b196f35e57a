"""Metrics, for Prometheus, on a port of their own."""

from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import WorkQueue


class ApiMetrics(Protocol):
    """What the Kubernetes client counts."""

    def called(self, verb: str, code: str) -> None:
        """Count one call of the API server."""
        ...


class PodMetrics(Protocol):
    """What the reader of pods counts."""

    def pod_called(self, verb: str, code: str) -> None:
        """Count one call of a pod."""
        ...


class PrometheusMetrics:
    """Every counter of the operator, in one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Histogram(
            "ullage_operator_reconcile_seconds",
            "Time that a reconcile took, by what it was about and how it ended.",
            ("kind", "outcome"),
            registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
        )
        self._status = Counter(
            "ullage_operator_status_writes",
            "Writes of a resource's status.",
            ("kind",),
            registry=self.registry,
        )
        self._api = Counter(
            "ullage_operator_api_calls",
            "Calls of the API server.",
            ("verb", "code"),
            registry=self.registry,
        )
        self._pods = Counter(
            "ullage_operator_pod_calls",
            "Calls of runtime pods.",
            ("verb", "code"),
            registry=self.registry,
        )
        self._depth = Gauge(
            "ullage_operator_queue_depth", "Keys that are due.", registry=self.registry
        )
        self._oldest = Gauge(
            "ullage_operator_queue_oldest_seconds",
            "Time for which the longest waiting key has been due.",
            registry=self.registry,
        )
        self._longest = Gauge(
            "ullage_operator_reconcile_longest_seconds",
            "Time for which the slowest worker has been at its key.",
            registry=self.registry,
        )

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one reconcile."""
        self._reconciles.labels(kind, outcome).observe(seconds)

    def status_written(self, kind: str) -> None:
        """Count one write of a status."""
        self._status.labels(kind).inc()

    def called(self, verb: str, code: str) -> None:
        """Count one call of the API server."""
        self._api.labels(verb, code).inc()

    def pod_called(self, verb: str, code: str) -> None:
        """Count one call of a pod."""
        self._pods.labels(verb, code).inc()

    def watch_queue(self, queue: WorkQueue[Key]) -> None:
        """Show the queue's state whenever the metrics are read."""
        self._depth.set_function(lambda: queue.depth)
        self._oldest.set_function(lambda: queue.oldest_seconds)
        self._longest.set_function(lambda: queue.longest_seconds)

    def serve(self, address: str, port: int) -> "MetricsServer":
        """Serve the metrics from a thread of their own."""
        server, thread = start_http_server(port, address, self.registry)
        return MetricsServer(server, thread)


class MetricsServer:
    """The running HTTP server of the metrics."""

    def __init__(self, server: "_Server", thread: "_Thread") -> None:
        self._server = server
        self._thread = thread

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Server(Protocol):
    def shutdown(self) -> None: ...

    def server_close(self) -> None: ...


class _Thread(Protocol):
    def join(self, timeout: float | None = None) -> None: ...
