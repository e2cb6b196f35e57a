"""A namespace as its people see it, on a cluster where the kubelet is played."""

import json
from dataclasses import dataclass
from typing import Any

from e2e.cluster.cluster import Cluster
from tests.support.operators import MDEP, eventually
from tests.support.played_pods import Kubelet

POOLS = {
    "default": {"image": "ullage-runtime:test"},
    "wide": {"image": "ullage-runtime:test", "replicas": {"min": 2, "max": 3}},
}


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "pool": "default",
            "task": "Chat",
            "model": {"uri": f"file:{name}.gguf"},
            **spec,
        },
    }


def notes(name: str = "notes", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": name},
        "spec": {"pool": "default", "embedding": {"modelDeployment": "embed"}, **spec},
    }


@dataclass
class Team:
    """A namespace as its people see it."""

    cluster: Cluster
    namespace: str
    kubelet: Kubelet

    def apply(self, *manifests: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", input=json.dumps(listed))

    def kubectl(self, *arguments: str, **options: Any) -> Any:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def get(self, name: str, resource: str = MDEP) -> dict[str, Any]:
        return self.cluster.get_json(resource, name, "-n", self.namespace)

    def status(self, name: str, resource: str = MDEP) -> dict[str, Any]:
        found: dict[str, Any] = self.get(name, resource).get("status", {})
        return found

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        return _condition(self.get(name), kind)

    def reaches(
        self, name: str, status: str, reason: str, kind: str = "Ready", resource: str = MDEP
    ) -> dict[str, Any]:
        """Wait until a condition says so of the spec as it is now, and return what it said."""
        seen: dict[str, Any] = {}

        def is_so() -> bool:
            found = self.get(name, resource)
            seen.clear()
            seen.update(_condition(found, kind))
            # What was said of an earlier spec may read alike.
            is_of_now = seen.get("observedGeneration") == found["metadata"]["generation"]
            return is_of_now and (seen.get("status"), seen.get("reason")) == (status, reason)

        eventually(
            f"{name}: {kind}={status} {reason}",
            is_so,
            show=lambda: self.status(name, resource).get("conditions"),
        )
        return seen

    def serves(self, *names: str, pool: str = "default", pods: int = 1) -> None:
        """Apply models, run the pool's pods, and wait until all are ready."""
        self.apply(*(model(name, pool=pool) for name in names))
        for ordinal in range(pods):
            self.kubelet.run(self.namespace, f"ullage-{pool}-{ordinal}")
        for name in names:
            self.reaches(name, "True", "Serving")

    def remains(self) -> list[str]:
        kinds = (
            "statefulsets,services,configmaps,secrets,serviceaccounts,"
            "networkpolicies,poddisruptionbudgets"
        )
        listed = self.cluster.get_json(kinds, "-n", self.namespace)["items"]
        return sorted(
            f"{item['kind']}/{item['metadata']['name']}"
            for item in listed
            if item["metadata"]["name"] not in {"kube-root-ca.crt", "default"}
        )


def _condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [c for c in resource.get("status", {}).get("conditions", ()) if c["type"] == kind]
    return found[0] if found else {}
