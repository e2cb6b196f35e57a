"""Reindex jobs on a real API server: their worker, their status, and how they leave."""

from datetime import datetime
from typing import Any

import pytest

from tests.integration.operator.test_collections import EMBED, serves
from tests.support.operators import RXJ, VCOL, eventually, settle, writes
from tests.support.played_teams import Team, notes
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.names import REINDEX_FINALIZER, reindex_worker_name

POD = "ullage-default-0"

pytestmark = pytest.mark.usefixtures("running")


def job(name: str = "notes-2", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ReindexJob",
        "metadata": {"name": name},
        "spec": {"collection": "notes", **spec},
    }


def workers(team: Team) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = team.cluster.get_json("jobs", "-n", team.namespace)["items"]
    return found


def test_a_job_gets_a_worker_shows_every_column_and_is_complete(team: Team) -> None:
    serves(team, notes())
    team.apply(job())
    team.reaches("notes-2", "False", "Reindexing", "Complete", RXJ)
    eventually("it has a worker", lambda: workers(team))
    found = team.get("notes-2", RXJ)
    assert found["metadata"]["finalizers"] == [REINDEX_FINALIZER]
    assert workers(team)[0]["metadata"]["name"] == reindex_worker_name(found["metadata"]["uid"])
    table = team.kubectl("get", RXJ, "-o", "wide").stdout
    assert "<none>" not in table, table
    assert [c.strip() for c in table.splitlines()[0].split("  ") if c.strip()] == [
        "NAME",
        "COLLECTION",
        "PLAN",
        "PHASE",
        "PROGRESS",
        "RATE",
        "AGE",
        "ETA",
        "REASON",
        "MESSAGE",
    ]
    ended = {"phase": ReindexPhase.SUCCEEDED, "reason": "Succeeded", "switched": True}
    team.kubelet.say(team.namespace, POD, "notes-2", **ended)
    team.kubectl("wait", "--for=condition=Complete", f"{RXJ}/notes-2", "--timeout=90s")
    eventually("its worker is gone", lambda: not workers(team))

    def is_let_go() -> bool:
        return "finalizers" not in team.get("notes-2", RXJ)["metadata"]

    eventually("it may be deleted", is_let_go)


def test_a_job_that_waits_for_its_collection_says_so_and_goes_at_once(team: Team) -> None:
    team.apply(job(collection="nowhere"))
    team.reaches("notes-2", "False", "UnknownCollection", "Complete", RXJ)
    team.kubectl("delete", RXJ, "notes-2", "--timeout=60s", timeout=70)


def test_a_job_that_is_deleted_is_cancelled_first(team: Team) -> None:
    serves(team, notes())
    team.apply(job())
    team.reaches("notes-2", "False", "Reindexing", "Complete", RXJ)
    # The pod says so of a job that its document calls deleted.
    team.kubectl("delete", RXJ, "notes-2", "--timeout=60s", timeout=70)
    eventually("its worker is gone", lambda: not workers(team) or _is_orphaned(team))
    team.reaches("notes", "True", "Serving", resource=VCOL)


def _is_orphaned(team: Team) -> bool:
    """Whether the worker only waits for the garbage collector, which not every cluster here has."""
    return all(w["metadata"]["ownerReferences"][0]["kind"] == "ReindexJob" for w in workers(team))


def test_a_job_that_is_over_goes_when_its_time_is(team: Team) -> None:
    serves(team, notes())
    team.apply(job(cancel=True, ttlSecondsAfterFinished=1))
    eventually(
        "it is gone",
        lambda: team.kubectl("get", RXJ, "notes-2", check=False).returncode != 0,
    )


def test_applying_the_same_again_writes_nothing(team: Team, since: datetime) -> None:
    serves(team, notes())
    team.apply(job(suspend=True))
    team.reaches("notes-2", "True", "Suspended", "Suspended", RXJ)
    settle(team.cluster, since=since, namespace=team.namespace)
    before = writes(team.cluster, since=since, namespace=team.namespace)
    team.apply(EMBED, notes(), job(suspend=True))
    settle(team.cluster, since=since, namespace=team.namespace)
    assert writes(team.cluster, since=since, namespace=team.namespace) == before
