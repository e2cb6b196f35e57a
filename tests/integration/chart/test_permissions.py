"""The operator runs under the chart's Roles, needs all of them, and is never refused.

The real operator runs as its ServiceAccount against a real API server, with the environment that
the chart's Deployment gives it. What it asked for is then read from the API server's audit log.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster.audit import AuditEvent
from e2e.cluster.cluster import Cluster
from tests.support.chart import CHART, EXAMPLES, RELEASE, only, rendered

pytestmark = pytest.mark.usefixtures("no_crds")

OPERATOR = "ullage-operator"
MDEP = "modeldeployments.ullage.dev"
VCOL = "vectorcollections.ullage.dev"
RXJ = "reindexjobs.ullage.dev"
JOB = {
    "apiVersion": "ullage.dev/v1alpha1",
    "kind": "ReindexJob",
    "metadata": {"name": "notes-2"},
    "spec": {"collection": "notes"},
}
POOL = "ullage-default"
FREED = (
    '[{"op": "add", "path": "/spec/deletionPolicy", "value": "Retain"},'
    ' {"op": "remove", "path": "/metadata/finalizers"}]'
)
"""No pod runs here that would say that the data is gone."""
SECONDS = 60.0

Permission = tuple[str, str, str]
"""A verb, an API group and a resource, with its subresource."""

_RACE = "read again when another manager wrote between our create and our claim of its fields"

_UNHEARD = "revisions are named by what pods report, and none runs here"

_UNDONE = "a reindex job gets a worker, and ends, by what pods report, and none runs here"

UNSEEN: dict[Permission, str] = {
    ("create", "", "secrets"): "applying an object that does not exist needs it; logged as patch",
    ("create", "apps", "controllerrevisions"): _UNHEARD,
    ("patch", "apps", "controllerrevisions"): _UNHEARD,
    ("delete", "apps", "controllerrevisions"): _UNHEARD,
    ("create", "batch", "jobs"): _UNDONE,
    ("delete", "batch", "jobs"): _UNDONE,
    ("delete", "ullage.dev", "reindexjobs"): _UNDONE,
    ("get", "", "serviceaccounts"): _RACE,
    ("get", "apps", "statefulsets"): _RACE,
    ("get", "networking.k8s.io", "networkpolicies"): _RACE,
    ("get", "policy", "poddisruptionbudgets"): _RACE,
}
"""Permissions that the audit log does not show in use, with why the operator needs them."""


def test_the_operator_lives_within_its_cluster_role_and_needs_all_of_it(
    empty_cluster: Cluster, system: str, teams: list[str], tmp_path: Path
) -> None:
    check(empty_cluster, system, teams[0], tmp_path, ())


def test_the_operator_lives_within_roles_of_the_namespaces_it_is_given(
    empty_cluster: Cluster, system: str, teams: list[str], tmp_path: Path
) -> None:
    values = (f"--set=watch.namespaces={{{','.join(teams)}}}",)
    check(empty_cluster, system, teams[1], tmp_path, values)


def check(cluster: Cluster, system: str, team: str, folder: Path, values: tuple[str, ...]) -> None:
    started = datetime.now(UTC)
    cluster.helm("install", RELEASE, str(CHART), "--namespace", system, *values)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{MDEP}")
    try:
        objects = rendered(*values, namespace=system)
        with running_operator(cluster, objects, system, folder):
            exercise(cluster, team)
    finally:
        cluster.kubectl("delete", MDEP, "--all", "--namespace", team)
        cluster.helm("uninstall", RELEASE, "--namespace", system)
    user = f"system:serviceaccount:{system}:{OPERATOR}"
    events = cluster.audit_events(since=started, user=user)
    assert refused(events) == []
    granted, used = permissions(objects), {permission(event) for event in events} - {None}
    assert sorted(granted - used - set(UNSEEN)) == [], "granted, but never needed"
    assert set(UNSEEN) - granted == set(), "listed as unseen, but not granted"


def exercise(cluster: Cluster, team: str) -> None:
    """Make the operator do all that it ever does."""
    for leftover in leftovers():
        cluster.apply(leftover, namespace=team)
    scope = ("--namespace", team)
    cluster.kubectl("apply", "-f", str(EXAMPLES / "quickstart.yaml"), *scope)
    objects = [
        f"statefulset/{POOL}",
        f"service/{POOL}",
        f"service/{POOL}-pods",
        "service/guide-model",
        f"configmap/{POOL}",
        f"serviceaccount/{POOL}",
        f"networkpolicy/{POOL}",
        f"poddisruptionbudget/{POOL}",
        f"pod/{POOL}-0",
    ]
    for each in objects:
        exists(cluster, each, team)
    # Further members change the owners of everything the pool has.
    cluster.kubectl("apply", "-f", str(EXAMPLES / "two-models.yaml"), *scope)
    for each in objects:
        if each.split("/")[0] not in {"pod", "service"} or each == f"service/{POOL}":
            owned = f"{each} belongs to all three"
            cluster.wait_for(owned, lambda each=each: owners(cluster, each, team) == 3)  # type: ignore[misc]
    label = "models.ullage.dev/guide,models.ullage.dev/guide-two,ullage.dev/pool=default"
    cluster.wait_for(
        "the pod says what it holds",
        lambda: bool(cluster.get_json("pods", "-l", label, *scope)["items"]),
    )
    cluster.kubectl("apply", "-f", str(EXAMPLES / "search.yaml"), *scope)
    exists(cluster, f"persistentvolumeclaim/{POOL}-collections", team)
    policy = '--patch={"spec": {"deletionPolicy": "Delete"}}'
    cluster.kubectl("patch", VCOL, "notes", "--type=merge", policy, *scope)
    cluster.wait_for(
        "its data goes before the collection does",
        lambda: bool(cluster.get_json(VCOL, "notes", *scope)["metadata"].get("finalizers")),
    )
    cluster.wait_for(
        "the collection has a status",
        lambda: bool(cluster.get_json(VCOL, "notes", *scope).get("status")),
    )
    cluster.apply(JOB, namespace=team)
    cluster.wait_for(
        "the job is held, and has a status",
        lambda: bool(
            (job := cluster.get_json(RXJ, "notes-2", *scope)).get("status")
            and job["metadata"].get("finalizers")
        ),
    )
    cluster.kubectl("patch", VCOL, "notes", "--type=json", f"--patch={FREED}", *scope)
    cluster.kubectl("delete", VCOL, "notes", *scope)
    # Without its collection nothing is left that would have to be cancelled.
    cluster.kubectl("delete", RXJ, "notes-2", "--timeout=60s", *scope)
    suspend = '--patch={"spec": {"suspend": true}}'
    cluster.kubectl("patch", MDEP, "guide", "--type=merge", suspend, *scope)
    cluster.wait_for(
        "the status says suspended",
        lambda: "Suspended" in {c["reason"] for c in conditions(cluster, "guide", team)},
    )
    for leftover in leftovers():
        gone(cluster, f"{leftover['kind']}/{leftover['metadata']['name']}", team)
    cluster.wait_for(
        "an Event is recorded", lambda: bool(cluster.get_json("events", *scope)["items"])
    )


def leftovers() -> list[dict[str, Any]]:
    """Return objects such as an older operator might have made, which this one has no use for."""
    labels = {
        "app.kubernetes.io/managed-by": "ullage-operator",
        "app.kubernetes.io/name": "ullage-runtime",
        "ullage.dev/pool": "default",
    }
    selector = {"matchLabels": {"old": "pool"}}
    container = {"name": "old", "image": "old:1"}
    template = {"metadata": {"labels": {"old": "pool"}}, "spec": {"containers": [container]}}
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        ("v1", "ServiceAccount"): {},
        ("v1", "Service"): {"spec": {"ports": [{"port": 80}], "selector": {"old": "pool"}}},
        ("networking.k8s.io/v1", "NetworkPolicy"): {"spec": {"podSelector": selector}},
        ("policy/v1", "PodDisruptionBudget"): {"spec": {"selector": selector, "minAvailable": 0}},
        ("apps/v1", "StatefulSet"): {
            "spec": {
                "replicas": 0,
                "serviceName": "old",
                "selector": selector,
                "template": template,
            }
        },
    }
    return [
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": f"{POOL}-old", "labels": labels},
            **body,
        }
        for (version, kind), body in bodies.items()
    ]


@contextmanager
def running_operator(
    cluster: Cluster, objects: list[dict[str, Any]], system: str, folder: Path
) -> Iterator[None]:
    """Run the operator as its ServiceAccount, with the environment that its Deployment says."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ULLAGE")},
        **deployment_environment(objects, system),
        "KUBECONFIG": str(cluster.kubeconfig_for(system, OPERATOR)),
        "PYTHONSAFEPATH": "1",
    }
    log = folder / "operator.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ullage_operator"],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
            assert process.poll() is None, log.read_text()[-4000:]
        except Exception as error:
            error.add_note(log.read_text()[-6000:])
            raise
        finally:
            process.terminate()
            assert process.wait(timeout=30) is not None


def deployment_environment(objects: list[dict[str, Any]], system: str) -> dict[str, str]:
    """Return the container's environment; only ports differ, since others may use them here."""
    container = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    fields = {"metadata.name": OPERATOR, "metadata.namespace": system}
    environment = {
        each["name"]: each["value"]
        if "value" in each
        else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }
    return environment | {name: str(free_port()) for name in environment if name.endswith("_PORT")}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def exists(cluster: Cluster, what: str, namespace: str) -> None:
    def found() -> bool:
        return cluster.kubectl("get", what, "--namespace", namespace, check=False).returncode == 0

    cluster.wait_for(f"{what} exists", found, timeout=SECONDS)


def gone(cluster: Cluster, what: str, namespace: str) -> None:
    def missing() -> bool:
        done = cluster.kubectl("get", what, "--namespace", namespace, check=False)
        return "NotFound" in done.stderr

    cluster.wait_for(f"{what} is gone", missing, timeout=SECONDS)


def owners(cluster: Cluster, what: str, namespace: str) -> int:
    found = cluster.get_json(what, "--namespace", namespace)
    return len(found["metadata"].get("ownerReferences", ()))


def conditions(cluster: Cluster, model: str, namespace: str) -> list[dict[str, Any]]:
    status = cluster.get_json(MDEP, model, "--namespace", namespace).get("status", {})
    found: list[dict[str, Any]] = status.get("conditions", [])
    return found


def permissions(objects: list[dict[str, Any]]) -> set[Permission]:
    """Return what the operator's Roles grant; the user-facing roles are somebody else's."""
    return {
        (verb, group, resource)
        for each in objects
        if each["kind"] in {"ClusterRole", "Role"} and each["metadata"]["name"].startswith(OPERATOR)
        for rule in each["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def permission(event: AuditEvent) -> Permission | None:
    """Return the permission that a request used; None for what everybody may ask, such as /apis."""
    if not event.resource:
        return None
    suffix = f"/{event.subresource}" if event.subresource else ""
    return event.verb, event.group, event.resource + suffix


def refused(events: list[AuditEvent]) -> list[str]:
    return [f"{e.verb} {e.uri} {e.status}" for e in events if e.status in {401, 403}]
