"""The control plane that other integration tests stand on is a real one."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from e2e.cluster.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.cluster import Cluster

CRDS = sorted((Path(__file__).parents[2] / "crds").glob("*.yaml"))


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    name = f"cluster-{uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def test_the_api_server_is_ready_and_tells_its_version(control_plane: Cluster) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz").stdout == "ok"
    if control_plane.spec is not None:
        assert '"gitVersion": "v1.34' in control_plane.kubectl("get", "--raw", "/version").stdout


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem)
def test_a_custom_resource_definition_is_accepted_and_served(
    control_plane: Cluster, path: Path
) -> None:
    control_plane.apply(path.read_text())
    shown = control_plane.kubectl("get", "-f", str(path), "-o", "name").stdout.split()
    assert shown
    for name in shown:
        control_plane.kubectl("wait", "--for=condition=Established", name, "--timeout=90s")


def test_what_a_deleted_owner_owned_is_collected(control_plane: Cluster, namespace: str) -> None:
    control_plane.apply(config_map("owner"), namespace=namespace)
    owner = control_plane.get_json("configmap", "owner", "-n", namespace)["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    control_plane.apply(config_map("owned", ownerReferences=[reference]), namespace=namespace)

    control_plane.kubectl("delete", "configmap", "owner", "-n", namespace)

    def collected() -> bool:
        left = control_plane.get_json("configmaps", "-n", namespace)["items"]
        return "owned" not in {item["metadata"]["name"] for item in left}

    control_plane.wait_for("the owned object is collected", collected, timeout=60)


def test_a_service_account_may_do_only_what_its_roles_say(
    control_plane: Cluster, namespace: str
) -> None:
    control_plane.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    grant = ["create", "rolebinding", "reader", "--clusterrole=view", "-n", namespace]
    control_plane.kubectl(*grant, f"--serviceaccount={namespace}:reader")
    as_reader = f"--kubeconfig={control_plane.kubeconfig_for(namespace, 'reader')}"

    control_plane.kubectl(as_reader, "get", "configmaps", "-n", namespace)
    with pytest.raises(CommandError, match=r"[Ff]orbidden"):
        control_plane.kubectl(as_reader, "create", "configmap", "mine", "-n", namespace)


def test_the_audit_log_tells_who_wrote_what(control_plane: Cluster, namespace: str) -> None:
    if control_plane.spec is None:
        pytest.skip("a cluster that somebody else runs shows us no audit log")
    before = dt.datetime.now(tz=dt.UTC)
    control_plane.apply(config_map("audited"), namespace=namespace)

    def written() -> bool:
        events = control_plane.audit_events(
            since=before, user="ullage-admin", user_agent="kubectl/", writes_only=True
        )
        return [(e.verb, e.resource, e.name) for e in events if e.namespace == namespace] == [
            ("patch", "configmaps", "audited")
        ]

    control_plane.wait_for("the one write is in the audit log", written, timeout=60)


def test_helm_talks_to_the_same_cluster(control_plane: Cluster) -> None:
    assert control_plane.helm("list", "--all-namespaces", "--output", "json").stdout.strip()
