"""Clusters as pytest fixtures: one per session and shape.

Load them with `pytest_plugins = ["e2e.cluster.fixtures"]` in the root `conftest.py`. The
environment may choose otherwise:

- `ULLAGE_E2E_KUBECONFIG=PATH`: use that cluster; nothing is started or ended.
- `ULLAGE_E2E_CLUSTER=NAME`: use the local cluster of that name, start it if need be, and leave it
  running, which saves a start per run while one writes a test.
- `CI=true`: what this machine cannot run is a failure and not a skip.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from e2e.cluster.binaries import program
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import MissingRequirementError
from e2e.cluster.images import IMAGES, build_image
from e2e.cluster.layout import Shape, Spec
from e2e.cluster.lifecycle import build_programs, down, prune, up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["control_plane", "node_cluster"]


@pytest.fixture(scope="session")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Give a cluster without nodes: the real API server and controllers; nothing runs pods."""
    yield from _cluster(request, tmp_path_factory, "control-plane")


@pytest.fixture(scope="session")
def node_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Give a cluster with one node, which has Ullage's images."""
    yield from _cluster(request, tmp_path_factory, "node")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the collected tests need before the first one's time starts to run.

    The first build of all takes minutes, and who waits should see why.
    """
    external = "ULLAGE_E2E_KUBECONFIG" in os.environ
    if external or session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    builds: dict[str, Callable[[], object]] = {
        "control_plane": partial(prepare, "control-plane"),
        "node_cluster": partial(prepare, "node"),
        "s3_gateway": partial(program, "versitygw"),
        "oci_registry": partial(program, "registry"),
    }
    capture = session.config.pluginmanager.getplugin("capturemanager")
    shown = capture.global_and_fixture_disabled() if capture else contextlib.nullcontext()
    with (
        shown,
        contextlib.suppress(MissingRequirementError),
    ):  # the fixture will say what is missing
        for fixture, build in builds.items():
            if fixture in wanted:
                build()


def prepare(shape: Shape) -> None:
    """Build every program and image that a cluster of this shape needs in tests."""
    build_programs(shape)
    if shape == "node":
        for name in IMAGES:
            build_image(name)


def unavailable(error: MissingRequirementError, *, on_ci: bool) -> NoReturn:
    """Skip what this machine cannot run; on CI, where everything must run, fail."""
    if on_ci:
        pytest.fail(f"CI must be able to run this: {error}", pytrace=False)
    pytest.skip(str(error))


def _cluster(
    request: pytest.FixtureRequest, folders: pytest.TempPathFactory, shape: Shape
) -> Iterator[Cluster]:
    external = os.environ.get("ULLAGE_E2E_KUBECONFIG")
    if external:
        cluster = Cluster.external(Path(external).expanduser(), folders.mktemp("cluster"))
        _give_images(cluster, shape)
        yield cluster
        return
    kept = os.environ.get("ULLAGE_E2E_CLUSTER")
    spec = Spec(name=kept or f"test-{os.getpid()}-{shape}"[:24].rstrip("-"), shape=shape)
    prune()
    try:
        cluster = up(spec if kept else spec.owned())
        try:
            _give_images(cluster, shape)
            yield cluster
        finally:
            if request.session.testsfailed:
                _keep_logs(cluster, request.config.rootpath)
            if not kept:
                down(spec.name)
    except MissingRequirementError as error:
        unavailable(error, on_ci=os.environ.get("CI") == "true")


def _give_images(cluster: Cluster, shape: Shape) -> None:
    if shape == "node":
        cluster.load_images(*[build_image(name) for name in IMAGES])


def _keep_logs(cluster: Cluster, root: Path) -> None:
    """Copy the components' logs to where a person, or the CI's artifacts, will find them."""
    target = root / ".e2e" / "logs" / cluster.dir.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(cluster.layout.logs, target)
