"""A team's view of the platform: a namespace, its models, and the means to ask them."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2e.cluster.network import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.cluster.cluster import Cluster

__all__ = ["Team", "model", "new_team", "teams_are_gone"]

MDEP = "modeldeployments.ullage.dev"
VCOL = "vectorcollections.ullage.dev"
POLL_SECONDS = 0.1
SERVICE_PORT = 80
TEAM_LABEL = "ullage.dev/e2e-team"
_numbers = itertools.count(1)


def model(name: str, uri: str = "file:guide-v1.gguf", **spec: object) -> dict[str, Any]:
    """Return a ModelDeployment in the pool `default`; `spec` adds or replaces fields."""
    source = {"uri": uri} | ({"sha256": spec.pop("sha256")} if "sha256" in spec else {})
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"pool": "default", "task": "Chat", "model": source, **spec},
    }


@dataclass(frozen=True, slots=True)
class Team:
    """One namespace of the cluster."""

    cluster: Cluster
    namespace: str

    def kubectl(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the team's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, **options)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Apply manifests as a person would."""
        documents = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", input=json.dumps(documents))

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Change some of a model's spec."""
        body = json.dumps({"spec": spec})
        self.kubectl("patch", MDEP, name, "--type=merge", "-p", body)

    def get(self, name: str, resource: str = MDEP) -> dict[str, Any]:
        """Return a model, or another resource, as the API server has it."""
        return self.cluster.get_json(resource, name, "--namespace", self.namespace)

    def status(self, name: str) -> dict[str, Any]:
        """Return a model's status, empty before the operator has written it."""
        status: dict[str, Any] = self.get(name).get("status", {})
        return status

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """Return one condition of a model, empty when it is absent."""
        return _condition(self.get(name), kind)

    def wait_condition(
        self,
        name: str,
        kind: str,
        status: str,
        reason: str | None = None,
        *,
        timeout: float = 120,
        resource: str = MDEP,
    ) -> dict[str, Any]:
        """Wait until a condition of the spec as it is now is as wanted, and return it."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            found = self.get(name, resource)
            seen.clear()
            seen.update(_condition(found, kind))
            # What was said of an earlier spec may read alike.
            is_of_now = seen.get("observedGeneration") == found["metadata"]["generation"]
            return is_of_now and seen["status"] == status and reason in {None, seen["reason"]}

        wanted = f"{name}: {kind}={status}" + (f" ({reason})" if reason else "")
        self.wait(wanted, reached, timeout=timeout, show=lambda: seen)
        return seen

    def wait(
        self,
        what: str,
        reached: Callable[[], bool],
        *,
        timeout: float = 60,
        show: Callable[[], object] | None = None,
    ) -> None:
        """Wait until `reached()`, or fail saying what did not happen and what is so instead."""
        self.cluster.wait_for(what, reached, timeout=timeout, poll=POLL_SECONDS, show=show)

    @contextmanager
    def reach(self, service: str) -> Iterator[str]:
        """Yield an OpenAI base address that leads to a Service of the namespace.

        On our own node the cluster address answers from here too; elsewhere a port is forwarded.
        A Service leads to its pods once the node's rules say so, a moment after they are ready;
        until then connections are refused, or lost between two tables of rules.
        """
        if self.cluster.spec is not None:
            address = self.cluster.service_ip(self.namespace, service)
            self.wait(f"{service} can be reached", lambda: _listens(address, SERVICE_PORT))
            yield f"http://{address}/v1"
            return
        port = free_ports(1)[0]
        command = ["kubectl", f"--kubeconfig={self.cluster.kubeconfig}", "port-forward"]
        process = subprocess.Popen(
            [*command, "-n", self.namespace, f"service/{service}", f"{port}:{SERVICE_PORT}"],
            stdout=subprocess.DEVNULL,
        )
        try:
            self.wait("port-forward listens", lambda: _listens("127.0.0.1", port), timeout=30)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=10)

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of the team's pool `default`."""
        selector = "ullage.dev/pool=default"
        answer = self.cluster.get_json("pods", "--namespace", self.namespace, "-l", selector)
        items: list[dict[str, Any]] = answer["items"]
        return items


@contextmanager
def new_team(cluster: Cluster) -> Iterator[Team]:
    """Yield a new namespace under the strictest pod security; it goes after the test.

    That takes ten seconds: nobody waits for it but `teams_are_gone`.
    """
    name = f"team-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    labels = ("pod-security.kubernetes.io/enforce=restricted", f"{TEAM_LABEL}=true")
    cluster.kubectl("label", "namespace", name, *labels)
    try:
        yield Team(cluster, name)
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def teams_are_gone(cluster: Cluster) -> None:
    """Wait until the namespaces of all teams are gone; one that stays says what holds it."""
    cluster.wait_until_gone("namespaces", "-l", TEAM_LABEL)


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [c for c in resource.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}
