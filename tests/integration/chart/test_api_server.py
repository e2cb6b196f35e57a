"""What the chart renders is accepted by a real API server."""

import pytest
import yaml

from e2e.cluster.cluster import Cluster
from tests.support.chart import CHART, EXAMPLES, RELEASE, ROOT, rendered

MDEP = "modeldeployments.ullage.dev"
GOLDEN = ROOT / "tests" / "golden" / "chart"
VALUES = {
    "default": None,
    **{path.stem: path for path in sorted(EXAMPLES.glob("values-*.yaml"))},
    "everything": GOLDEN / "everything.values.yaml",
}


@pytest.mark.parametrize("name", VALUES)
def test_every_rendered_object_passes_the_api_server(
    name: str, empty_cluster: Cluster, system: str, teams: list[str]
) -> None:
    values = [f"--values={VALUES[name]}"] if VALUES[name] else []
    objects = rendered(*values, namespace=system)
    # The Prometheus operator's kinds are not in a bare cluster; the golden file covers those.
    known = [each for each in objects if each["apiVersion"] != "monitoring.coreos.com/v1"]
    done = empty_cluster.kubectl(
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "--force-conflicts",
        "-f",
        "-",
        input=yaml.safe_dump_all(known),
    )
    assert len(done.stdout.splitlines()) == len(known)
    assert "Warning" not in done.stderr


@pytest.mark.usefixtures("no_crds")
def test_helm_installs_upgrades_without_a_change_and_leaves_the_crds(
    empty_cluster: Cluster, system: str
) -> None:
    release = (RELEASE, str(CHART), "--namespace", system)
    empty_cluster.helm("install", *release)
    first = empty_cluster.get_json("deployment", "ullage-operator", "--namespace", system)
    empty_cluster.helm("upgrade", *release)
    second = empty_cluster.get_json("deployment", "ullage-operator", "--namespace", system)
    assert first["metadata"]["generation"] == second["metadata"]["generation"]

    empty_cluster.helm("uninstall", RELEASE, "--namespace", system)
    assert empty_cluster.get_json("crd", MDEP)["metadata"]["name"] == MDEP


@pytest.mark.usefixtures("no_crds")
def test_an_editor_may_deploy_models_and_a_viewer_only_looks(
    empty_cluster: Cluster, system: str, teams: list[str]
) -> None:
    empty_cluster.helm("install", RELEASE, str(CHART), "--namespace", system)
    for role in ("edit", "view"):
        binding = ("rolebinding", role, f"--clusterrole={role}", f"--user={role}-user")
        empty_cluster.kubectl("create", *binding, "--namespace", teams[0])

    def may(user: str, verb: str, subresource: str = "") -> bool:
        question = (verb, MDEP, f"--subresource={subresource}", f"--as={user}")
        arguments = ("auth", "can-i", *question, "--namespace", teams[0])
        return empty_cluster.kubectl(*arguments, check=False).stdout.strip() == "yes"

    # The controller manager adds our roles to the cluster's a moment later.
    empty_cluster.wait_for("editors may create", lambda: may("edit-user", "create"))
    empty_cluster.wait_for("viewers may list", lambda: may("view-user", "list"))
    assert may("edit-user", "patch", "scale")
    assert not may("edit-user", "patch", "status")
    assert not may("view-user", "create")
    assert not may("view-user", "patch", "scale")
    empty_cluster.helm("uninstall", RELEASE, "--namespace", system)
