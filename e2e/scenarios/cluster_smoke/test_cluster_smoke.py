"""The node that other scenarios stand on runs pods as any cluster does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from e2e.cluster.network import answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.cluster import Cluster

IMAGE = "ullage-operator:dev"
PORT = 8080
# The strictest pod security standard, as Ullage's own pods have to meet it.
RESTRICTED = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def namespace(node_cluster: Cluster) -> Iterator[str]:
    name = f"smoke-{uuid4().hex[:8]}"
    node_cluster.kubectl("create", "namespace", name)
    level = "pod-security.kubernetes.io/enforce=restricted"
    node_cluster.kubectl("label", "namespace", name, level)
    yield name
    node_cluster.kubectl("delete", "namespace", name, "--wait=false")


def container(*command: str, **more: object) -> dict[str, Any]:
    return {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": RESTRICTED,
        **more,
    }


def web() -> dict[str, Any]:
    serve = container(
        *("python", "-m", "http.server", str(PORT), "--directory", "/etc"),
        readinessProbe={"httpGet": {"port": PORT, "path": "/hostname"}, "periodSeconds": 1},
        resources={"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}},
    )
    labels = {"app": "web"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [serve]}},
        },
    }


def roll_out(cluster: Cluster, namespace: str) -> None:
    cluster.apply(web(), namespace=namespace)
    scope = ["-n", namespace]
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=90s", *scope, timeout=100)
    expose = ["expose", "deployment", "web", "--port=80", f"--target-port={PORT}"]
    cluster.kubectl(*expose, *scope)


def a_pod_reads(cluster: Cluster, namespace: str, url: str) -> bool:
    code = f"from urllib.request import urlopen; print(urlopen({url!r}, timeout=5).read())"
    execute = ["exec", "deployment/web", "-n", namespace, "--", "python", "-c", code]
    return cluster.kubectl(*execute, check=False).returncode == 0


def test_a_deployment_rolls_out_and_answers_by_its_name(
    node_cluster: Cluster, namespace: str
) -> None:
    roll_out(node_cluster, namespace)

    for host in ("web", f"web.{namespace}.svc.cluster.local"):
        url = f"http://{host}/hostname"
        # The proxy and the name server follow a new Service at once, but not in the same instant.
        node_cluster.wait_for(
            f"a pod reads {url}", partial(a_pod_reads, node_cluster, namespace, url), timeout=20
        )

    logged = node_cluster.kubectl("logs", "deployment/web", "-n", namespace).stdout
    assert "GET /hostname" in logged


def test_this_machine_reaches_a_service_by_its_own_address(
    node_cluster: Cluster, namespace: str
) -> None:
    if node_cluster.spec is None:
        pytest.skip("the network of a cluster that somebody else runs is not reached from here")
    roll_out(node_cluster, namespace)
    address = node_cluster.service_ip(namespace, "web")
    node_cluster.wait_for("the Service answers", lambda: answers(f"http://{address}/hostname"))


def test_a_claim_is_bound_and_keeps_what_a_pod_wrote(node_cluster: Cluster, namespace: str) -> None:
    node_cluster.create_volumes(f"{namespace}-data")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    node_cluster.apply(claim, namespace=namespace)
    scope = ["-n", namespace]
    for name, code in (
        ("writer", "open('/data/file', 'w').write('kept')"),
        ("reader", "assert open('/data/file').read() == 'kept'"),
    ):
        main = container("python", "-c", code, volumeMounts=[{"name": "v", "mountPath": "/data"}])
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [main], "volumes": [volume]},
        }
        node_cluster.apply(pod, namespace=namespace)
        done = "--for=jsonpath={.status.phase}=Succeeded"
        node_cluster.kubectl("wait", done, f"pod/{name}", "--timeout=60s", *scope, timeout=70)
    if node_cluster.spec is not None:
        node_cluster.kubectl("delete", "pod,pvc", "--all", *scope)
        node_cluster.kubectl("delete", "persistentvolume", f"{namespace}-data-0")


@pytest.mark.parametrize("image", ["ullage-operator:dev", "ullage-runtime:dev"])
def test_an_image_runs_as_nobody_on_a_read_only_root(
    node_cluster: Cluster, namespace: str, image: str
) -> None:
    module = image.removesuffix(":dev").replace("-", "_")
    check = (
        f"import os, sys, operator, {module}; assert os.getuid() == 65532; "
        "assert sys.flags.safe_path; assert not os.access('/opt/ullage', os.W_OK); "
        "assert operator.__file__.startswith(sys.base_prefix)"
    )
    main = container("python", "-c", check, image=image)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "check"},
        "spec": {"restartPolicy": "Never", "containers": [main]},
    }
    node_cluster.apply(pod, namespace=namespace)

    def phase() -> str:
        found = node_cluster.get_json("pod", "check", "-n", namespace)
        return str(found["status"]["phase"])

    node_cluster.wait_for("the pod ends", lambda: phase() in {"Succeeded", "Failed"})
    assert phase() == "Succeeded", node_cluster.kubectl("logs", "check", "-n", namespace).stdout
