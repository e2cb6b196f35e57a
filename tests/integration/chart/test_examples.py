"""What the examples say is accepted by a real API server."""

from pathlib import Path

import pytest

from e2e.cluster.cluster import Cluster
from tests.support.chart import EXAMPLES

MANIFESTS = sorted(path for path in EXAMPLES.glob("*.yaml") if not path.name.startswith("values-"))


@pytest.mark.usefixtures("crds", "teams")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_example_passes_the_api_server(path: Path, empty_cluster: Cluster) -> None:
    done = empty_cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert "server dry run" in done.stdout
