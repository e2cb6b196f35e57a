"""What a platform team sees: the chart's release, the operator, and what it asked of the API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from e2e.cluster.audit import AuditEvent
    from e2e.cluster.cluster import Cluster

__all__ = ["AFTER_TRAFFIC_SECONDS", "EXAMPLES", "RUNTIME_IMAGE", "SYSTEM", "Platform"]

SYSTEM = "ullage-system"
RELEASE = "ullage"
OPERATOR = "app.kubernetes.io/name=ullage,app.kubernetes.io/component=operator"
OPERATOR_USER = f"system:serviceaccount:{SYSTEM}:"
CHART = Path(__file__).parents[2] / "charts" / "ullage"
RUNTIME_IMAGE = "ullage-runtime:dev"
EXAMPLES = Path(__file__).parents[2] / "examples"
VALUES = Path(__file__).parent / "values.yaml"

SETTLED_SECONDS = 3.0
"""A team's namespace counts as settled when the operator has written nothing for so long."""
AFTER_TRAFFIC_SECONDS = 30.0 + SETTLED_SECONDS
"""Likewise after traffic: what memory it took is shown when status was last written 30 s ago."""


@dataclass(frozen=True, slots=True)
class Platform:
    """An installed Ullage."""

    cluster: Cluster

    def install(self) -> None:
        """Install the chart, or bring an installed one up to date."""
        self.cluster.helm(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM,
            "--create-namespace", "--values", str(VALUES), "--wait", "--timeout", "180s",
        )  # fmt: skip

    def operator_pods(self, *, ready: bool = False) -> list[str]:
        """Return the names of the operator's pods; with `ready`, of those that are ready."""
        answer = self.cluster.get_json("pods", "-n", SYSTEM, "-l", OPERATOR)
        return [pod["metadata"]["name"] for pod in answer["items"] if not ready or _is_ready(pod)]

    def scale_operator(self, replicas: int) -> None:
        """Set the operator's replicas and wait until it is so."""
        deployments = self.cluster.get_json("deployments", "-n", SYSTEM, "-l", OPERATOR)["items"]
        (name,) = [d["metadata"]["name"] for d in deployments]
        self.cluster.kubectl("scale", f"deployment/{name}", "-n", SYSTEM, f"--replicas={replicas}")
        self.cluster.wait_for(
            f"{replicas} operator pods",
            lambda: len(self.operator_pods()) == replicas == len(self.operator_pods(ready=True)),
            timeout=90,
        )

    def operator_writes(self, *, since: datetime, namespace: str) -> list[AuditEvent]:
        """Return what the operator wrote in a namespace, as the API server counted it."""
        events = self.cluster.audit_events(since=since, user=OPERATOR_USER, writes_only=True)
        return [event for event in events if event.namespace == namespace]

    def wait_until_settled(
        self, namespace: str, *, seconds: float = SETTLED_SECONDS, timeout: float = 120
    ) -> None:
        """Wait until the operator has not written in a namespace for some seconds."""
        deadline = time.monotonic() + timeout
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            if time.monotonic() > deadline:
                raise AssertionError(f"the operator still writes in {namespace}")
            count = len(
                [
                    event
                    for event in self.cluster.audit_events(user=OPERATOR_USER, writes_only=True)
                    if event.namespace == namespace
                ]
            )
            if count != seen:
                seen, since = count, time.monotonic()
            time.sleep(0.25)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
