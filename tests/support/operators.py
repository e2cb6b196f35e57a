"""The operator as a process of its own, and what it did as the API server saw it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from e2e.cluster.audit import AuditEvent
from e2e.cluster.cluster import Cluster
from e2e.cluster.network import free_ports

MDEP = "modeldeployments.ullage.dev"
VCOL = "vectorcollections.ullage.dev"
RXJ = "reindexjobs.ullage.dev"
SYSTEM = "ullage-operator-tests"
PROFILES = "ullage-pools"
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds for what takes one or two on a quiet machine."""
QUIET_SECONDS = 2.0


def eventually(
    what: str,
    reached: Callable[[], object],
    *,
    seconds: float = PATIENCE,
    show: Callable[[], object] | None = None,
) -> None:
    """Wait until something is so, or fail saying what is so instead."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            instead = f"; instead: {show()}" if show else ""
            raise AssertionError(f"{what}: not within {seconds:.0f} s{instead}")
        time.sleep(0.05)


@dataclass
class Operator:
    """A running operator."""

    process: "subprocess.Popen[bytes]"
    probe: str
    metrics: str
    log: Path

    def is_up(self) -> bool:
        """Whether its liveness endpoint answers."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return httpx.get(self.probe, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def sample(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        text = httpx.get(self.metrics, timeout=5, trust_env=False).text
        lines = (line for line in text.splitlines() if line.startswith(name))
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def operator(cluster: Cluster, folder: Path, **environment: str) -> Iterator[Operator]:
    """Run the operator against a cluster as its administrator; it is ended with SIGTERM."""
    probe, metrics = free_ports(2)
    given = {
        "KUBECONFIG": str(cluster.kubeconfig),
        "ULLAGE_OPERATOR_NAMESPACE": SYSTEM,
        "ULLAGE_OPERATOR_PROFILES_CONFIG_MAP": PROFILES,
        "ULLAGE_OPERATOR_LISTEN_ADDRESS": "127.0.0.1",
        "ULLAGE_OPERATOR_PROBE_PORT": str(probe),
        "ULLAGE_OPERATOR_METRICS_PORT": str(metrics),
        **environment,
    }
    log = folder / "operator.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ullage_operator"],
            env={**os.environ, **given},
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    running = Operator(
        process,
        f"http://127.0.0.1:{probe}/healthz",
        f"http://127.0.0.1:{metrics}/metrics",
        log,
    )
    try:
        eventually(
            "the operator is up",
            running.is_up,
            show=lambda: log.read_text()[-4000:],
        )
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError("the operator did not end on SIGTERM") from None


def define_pools(cluster: Cluster, **profiles: Any) -> None:
    """Write the platform's ConfigMap of pool profiles."""
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": PROFILES, "namespace": SYSTEM},
            "data": {"pools.yaml": yaml.safe_dump(profiles)},
        }
    )


def writes(cluster: Cluster, *, since: datetime, namespace: str) -> list[tuple[str, ...]]:
    """Return what the operator, or Kopf for it, wrote in a namespace."""
    found: list[AuditEvent] = []
    for agent in ("ullage-operator/", "kopf/"):
        found += cluster.audit_events(since=since, user_agent=agent, writes_only=True)
    return [
        (e.verb, e.resource, e.subresource, e.name, str(e.status))
        for e in found
        if e.namespace == namespace
    ]


def settle(cluster: Cluster, *, since: datetime, namespace: str, seconds: float = PATIENCE) -> None:
    """Wait until the operator has not written in a namespace for a while."""
    deadline = time.monotonic() + seconds
    seen, changed = -1, time.monotonic()
    while time.monotonic() - changed < QUIET_SECONDS:
        assert time.monotonic() < deadline, "the operator goes on writing"
        count = len(writes(cluster, since=since, namespace=namespace))
        if count != seen:
            seen, changed = count, time.monotonic()
        time.sleep(0.1)
