"""One installed platform for all scenarios, and a namespace of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.scenarios.file_server import FileServer
from e2e.scenarios.platform import RUNTIME_IMAGE, Platform
from e2e.scenarios.team import Team, model, new_team, teams_are_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def platform(node_cluster: Cluster) -> Iterator[Platform]:
    """Give Ullage as its chart installs it on the node; at last, nothing holds a namespace."""
    installed = Platform(node_cluster)
    installed.install()
    yield installed
    teams_are_gone(node_cluster)


@pytest.fixture
def team(platform: Platform) -> Iterator[Team]:
    """Return a new namespace under the strictest pod security; it goes after the test."""
    with new_team(platform.cluster) as made:
        yield made


@pytest.fixture
def ready(team: Team) -> Team:
    """Return a team whose model `guide` serves."""
    team.apply(model("guide"))
    team.wait_condition("guide", "Ready", "True")
    return team


@pytest.fixture
def files(team: Team) -> FileServer:
    """Return a web server with good and bad model files, in the team's namespace."""
    server = FileServer(team)
    server.start(RUNTIME_IMAGE)
    return server
