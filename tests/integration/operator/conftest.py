"""One cluster and one operator for all tests; a namespace and its pods for each."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2e.cluster.cluster import Cluster
from tests.support.operators import MDEP, ROOT, SYSTEM, Operator, define_pools, operator
from tests.support.played_pods import Kubelet
from tests.support.played_teams import POOLS, Team

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def platform(control_plane: Cluster) -> Cluster:
    """Give a cluster with our CRDs, pool profiles and a namespace for the operator."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        control_plane.apply(path.read_text())
    control_plane.kubectl("wait", "--for=condition=Established", f"crd/{MDEP}")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    control_plane.apply(namespace)
    define_pools(control_plane, **POOLS)
    return control_plane


@pytest.fixture(scope="module")
def running(platform: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Run the operator for a module's tests."""
    with operator(platform, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture
def kubelet(platform: Cluster, tmp_path: Path) -> Iterator[Kubelet]:
    """Play the kubelet."""
    player = Kubelet(platform, tmp_path / "pods")
    player.start()
    try:
        yield player
    finally:
        player.close()


@pytest.fixture
def team(platform: Cluster, kubelet: Kubelet) -> Iterator[Team]:
    """Give a namespace of its own."""
    name = f"operator-{next(_numbers)}"
    platform.kubectl("create", "namespace", name)
    yield Team(platform, name, kubelet)
    platform.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def since() -> datetime:
    """Give the moment at which the test began."""
    return datetime.now(UTC)
