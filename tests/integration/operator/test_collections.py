"""Collections on a real API server: their volume, their status, and how they leave."""

from datetime import datetime
from typing import Any

import pytest

from tests.support.operators import VCOL, eventually, settle, writes
from tests.support.played_teams import Team, model, notes

POD = "ullage-default-0"
CLAIM = "ullage-default-collections"
EMBED = model("embed", task="Embedding")

pytestmark = pytest.mark.usefixtures("running")


def serves(team: Team, *collections: dict[str, Any]) -> None:
    team.apply(EMBED, *collections)
    claim = f"persistentvolumeclaim/{CLAIM}"
    eventually(
        "the pod is to mount the volume",
        lambda: "collections" in {v["name"] for v in volumes(team)},
        show=lambda: team.kubectl("get", claim, check=False).stdout,
    )
    team.kubelet.run(team.namespace, POD)
    for each in collections:
        team.reaches(each["metadata"]["name"], "True", "Serving", resource=VCOL)


def volumes(team: Team) -> list[dict[str, Any]]:
    found = team.kubelet.get(team.namespace, POD)
    listed: list[dict[str, Any]] = found["spec"]["volumes"] if found is not None else []
    return listed


def test_a_collection_that_answers_shows_every_column(team: Team) -> None:
    serves(team, notes())
    status = team.status("notes", VCOL)
    assert status["url"] == f"http://ullage-default.{team.namespace}.svc/v1/collections/notes"
    assert status["model"] == {"name": "embed", "revision": "r1", "dimensions": 384}
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("Ready", "Accepted", "InSync", "Indexed"), "True"
    )
    table = team.kubectl("get", VCOL, "-o", "wide").stdout
    assert "<none>" not in table, table
    header = table.splitlines()[0]
    assert [c.strip() for c in header.split("  ") if c.strip()] == [
        "NAME",
        "MODEL",
        "PROFILE",
        "POINTS",
        "READY",
        "REASON",
        "IN SYNC",
        "AGE",
        "STORE",
        "DIMENSIONS",
        "URL",
        "MESSAGE",
    ]
    team.kubectl("wait", "--for=condition=Ready", f"{VCOL}/notes", "--timeout=90s")


def test_applying_the_same_again_writes_nothing(team: Team, since: datetime) -> None:
    serves(team, notes(deletionPolicy="Delete"))
    settle(team.cluster, since=since, namespace=team.namespace)
    before = writes(team.cluster, since=since, namespace=team.namespace)
    team.apply(EMBED, notes(deletionPolicy="Delete"))
    settle(team.cluster, since=since, namespace=team.namespace)
    assert writes(team.cluster, since=since, namespace=team.namespace) == before
    team.kubectl("patch", VCOL, "notes", "--type=json", f"-p={RETAINED}")
    eventually(
        "the finalizer is gone",
        lambda: not team.get("notes", VCOL)["metadata"].get("finalizers"),
    )


RETAINED = '[{"op": "remove", "path": "/spec/deletionPolicy"}]'


def test_a_difference_that_needs_a_reindex_is_told_while_it_serves(team: Team) -> None:
    serves(team, notes())
    team.kubelet.say(
        team.namespace, POD, "notes", differences=("distance is Cosine, wanted is Dot",)
    )
    found = team.reaches("notes", "False", "NeedsReindex", kind="InSync", resource=VCOL)
    assert "distance is Cosine, wanted is Dot" in found["message"]
    team.reaches("notes", "True", "Serving", resource=VCOL)


def test_a_pool_of_several_pods_refuses_it(team: Team) -> None:
    team.apply(notes(pool="wide"))
    found = team.reaches("notes", "False", "PoolHasReplicas", kind="Accepted", resource=VCOL)
    assert "replicas.max 1" in found["message"]
    team.reaches("notes", "False", "PoolHasReplicas", resource=VCOL)


def test_the_volume_outlives_the_collection_and_its_pool(team: Team) -> None:
    serves(team, notes())
    claim = team.cluster.get_json("persistentvolumeclaim", CLAIM, "-n", team.namespace)
    assert "ownerReferences" not in claim["metadata"]
    team.kubectl("delete", VCOL, "notes", "--timeout=30s")
    team.kubectl("delete", "mdep", "embed", "--timeout=30s")
    eventually("the pool's objects are gone", lambda: team.remains() == [], show=team.remains)
    again = team.cluster.get_json("persistentvolumeclaim", CLAIM, "-n", team.namespace)
    assert again["metadata"]["uid"] == claim["metadata"]["uid"]


def test_deleted_data_goes_first_even_when_the_model_goes_with_it(team: Team) -> None:
    serves(team, notes(deletionPolicy="Delete"))
    eventually(
        "it is held until its data is gone",
        lambda: team.get("notes", VCOL)["metadata"].get("finalizers") == ["ullage.dev/collection"],
    )
    team.kubectl("delete", f"{VCOL}/notes", "mdep/embed", "--timeout=60s")
    eventually("the pool goes with it", lambda: team.remains() == [], show=team.remains)
