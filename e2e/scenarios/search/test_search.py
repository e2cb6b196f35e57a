"""Documents in, answers out, and the pod's death changes nothing."""

from typing import Any

import httpx
import pytest
import yaml

from e2e.scenarios.platform import EXAMPLES, Platform
from e2e.scenarios.team import VCOL, Team

SEARCH = EXAMPLES / "search.yaml"
DOCUMENTS = {
    "ullage": "Ullage is the headroom left in a tank, so that what expands has room.",
    "pool": "A pool is a set of pods that share the memory of their devices.",
    "swap": "A swap replaces one revision of a model by another without failing a request.",
}


@pytest.fixture
def library(platform: Platform, team: Team) -> Team:
    """Return a team that has applied the example, in the pool that may hold collections."""
    platform.cluster.create_volumes(f"{team.namespace}-library")
    manifests = list(yaml.safe_load_all(SEARCH.read_text()))
    for each in manifests:
        each["spec"]["pool"] = "library"
    team.apply(*manifests)
    team.wait_condition("notes", "Ready", "True", "Serving", timeout=180, resource=VCOL)
    return team


def found(url: str, query: str) -> list[str]:
    answer = httpx.post(
        f"{url}/collections/notes/search", json={"query": query, "mode": "Sparse"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    return [hit["payload"]["document"] for hit in answer.json()["results"]]


def row(team: Team) -> str:
    return str(team.kubectl("get", VCOL, "notes", "--no-headers").stdout)


def test_what_was_taken_in_is_found_again_after_the_pod_was_deleted(library: Team) -> None:
    documents: list[dict[str, Any]] = [{"id": i, "text": t} for i, t in DOCUMENTS.items()]
    with library.reach("ullage-library") as url:
        answer = httpx.post(
            f"{url}/collections/notes/documents",
            params={"wait": True},
            json={"documents": documents},
            timeout=120,
        )
        assert answer.status_code == 202, answer.text
        assert (answer.json()["done"], answer.json()["failed"]) == (3, 0), answer.text
        assert found(url, "headroom in a tank")[0] == "ullage"

    def told() -> bool:
        return row(library).split()[1:6] == ["embed", "Balanced", "3", "True", "Serving"]

    library.wait("kubectl get vcol tells the points", told, show=lambda: row(library), timeout=90)

    pod = library.kubectl("get", "pod", "ullage-library-0", "-o", "name").stdout.strip()
    library.kubectl("delete", pod, "--timeout=60s", timeout=70)
    library.wait_condition("notes", "Ready", "True", "Serving", timeout=180, resource=VCOL)
    with library.reach("ullage-library") as url:
        library.wait("it is found again", lambda: answers(url), timeout=90)
        assert httpx.get(f"{url}/collections/notes", timeout=30).json()["points"] == 3


def answers(url: str) -> bool:
    try:
        return found(url, "headroom in a tank")[:1] == ["ullage"]
    except (httpx.HTTPError, AssertionError):
        return False
