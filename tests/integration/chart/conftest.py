"""A cluster for the chart alone: its tests install and remove what others rely on."""

import os
from collections.abc import Iterator

import pytest

from e2e.cluster.cluster import Cluster
from e2e.cluster.layout import Spec
from e2e.cluster.lifecycle import down, up
from tests.support.chart import ROOT


@pytest.fixture(scope="session")
def empty_cluster() -> Iterator[Cluster]:
    """Give a control plane that is ours to fill and empty; never somebody else's cluster."""
    spec = Spec(name=f"chart-{os.getpid()}", shape="control-plane").owned()
    try:
        yield up(spec)
    finally:
        down(spec.name)


def namespace(name: str, standard: str = "baseline") -> dict[str, object]:
    """Return a namespace under a pod security standard."""
    label = {"pod-security.kubernetes.io/enforce": standard}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": label}}


# Namespaces take ten seconds to go, and this cluster goes with them in it.
@pytest.fixture(scope="session")
def system(empty_cluster: Cluster) -> str:
    """Give a namespace for the operator, under the strictest pod security standard."""
    name = "chart-system"
    empty_cluster.apply(namespace(name, "restricted"))
    return name


@pytest.fixture(scope="session")
def teams(empty_cluster: Cluster) -> list[str]:
    """Give the namespaces that the examples speak of."""
    names = ["team-a", "team-b"]
    for name in names:
        empty_cluster.apply(namespace(name))
    return names


@pytest.fixture
def no_crds(empty_cluster: Cluster) -> Iterator[None]:
    """Leave no CRD behind: the chart keeps them when its release goes."""
    yield
    remove_crds(empty_cluster)


@pytest.fixture(scope="module")
def crds(empty_cluster: Cluster) -> Iterator[None]:
    """Have the CRDs, without the chart, for a file's tests."""
    empty_cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    empty_cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
    yield
    remove_crds(empty_cluster)


def remove_crds(cluster: Cluster) -> None:
    """Remove every CRD; one that stays says why."""
    cluster.kubectl("delete", "customresourcedefinitions", "--all", "--wait=false")
    cluster.wait_until_gone("customresourcedefinitions")
