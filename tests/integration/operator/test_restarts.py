"""The operator killed, restarted, and given other profiles: serving goes on, nothing is redone."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2e.cluster.cluster import Cluster
from tests.support.operators import (
    MDEP,
    PATIENCE,
    SYSTEM,
    define_pools,
    eventually,
    operator,
    settle,
    writes,
)
from tests.support.played_teams import POOLS, Team, model


def test_a_restarted_operator_writes_nothing_when_nothing_has_changed(
    platform: Cluster, team: Team, tmp_path: Path
) -> None:
    with operator(platform, tmp_path) as first:
        team.serves("one", "two")
        settle(platform, since=datetime.now(UTC), namespace=team.namespace)
        first.process.kill()
        first.process.wait()
    before = team.status("one")
    since = datetime.now(UTC)
    with operator(platform, tmp_path) as second:
        eventually(
            "both models were looked at with their pods' reports",
            lambda: second.sample("ullage_operator_reconcile_seconds_count") >= 4,
        )
        settle(platform, since=since, namespace=team.namespace)
        assert writes(platform, since=since, namespace=team.namespace) == []
        assert team.status("one") == before

        team.kubectl("patch", MDEP, "one", "--type=merge", '-p={"spec":{"aliases":["x"]}}')
        eventually("it still works", lambda: team.status("one")["observedGeneration"] == 2)


def test_what_changed_while_it_was_away_is_caught_up_with(
    platform: Cluster, team: Team, tmp_path: Path
) -> None:
    with operator(platform, tmp_path):
        team.serves("one", "two")
    team.kubectl("delete", MDEP, "two", "--timeout=90s")
    team.apply(model("one", aliases=["x"]), model("three"))
    with operator(platform, tmp_path):
        team.reaches("three", "True", "Serving")
        eventually("the change is seen", lambda: team.status("one")["observedGeneration"] == 2)
        found = team.cluster.get_json("configmap", "ullage-default", "-n", team.namespace)
        document = json.loads(found["data"]["desired.json"])
        assert [m["name"] for m in document["models"]] == ["one", "three"]


def test_an_operator_ends_cleanly_on_sigterm(platform: Cluster, tmp_path: Path) -> None:
    with operator(platform, tmp_path) as running:
        running.process.terminate()
        assert running.process.wait(timeout=PATIENCE) == 0
    lines = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert lines[-1]["event"] == "operator has ended"
    assert [line for line in lines if line["level"] in {"error", "warning"}] == []


def test_a_profile_is_changed_broken_and_mended_without_a_restart(
    platform: Cluster, team: Team, tmp_path: Path
) -> None:
    def image() -> Any:
        listed = team.cluster.get_json("statefulsets", "-n", team.namespace)["items"]
        return [s["spec"]["template"]["spec"]["containers"][0]["image"] for s in listed]

    def environment() -> set[str]:
        found = team.cluster.get_json("statefulset", "ullage-mine", "-n", team.namespace)
        (container,) = found["spec"]["template"]["spec"]["containers"]
        return {entry["name"] for entry in container["env"]}

    # Pods stay as they are: nobody plays a rollout here.
    still = {"updateStrategy": "OnDelete"}
    extra = {"env": [{"name": "EXTRA", "value": "1"}]}
    own: dict[str, Any] = {**POOLS, "mine": {"image": "ullage-runtime:one", **still, **extra}}
    define_pools(platform, **own)
    try:
        with operator(platform, tmp_path):
            team.serves("chat", pool="mine")
            assert image() == ["ullage-runtime:one"]
            assert "EXTRA" in environment()

            own["mine"] = {"image": "ullage-runtime:two", **still}
            define_pools(platform, **own)
            eventually("the new image is there", lambda: image() == ["ullage-runtime:two"])
            assert "EXTRA" not in environment(), "what is wanted no more must go"

            own["mine"] = {"image": "ullage-runtime:three", "replicas": {"min": 9, "max": 1}}
            define_pools(platform, **own)
            found = team.reaches("chat", "True", "ProfileMissing", kind="Accepted")
            assert "replicas.min (9)" in found["message"]
            assert image() == ["ullage-runtime:two"]
            assert team.condition("chat")["status"] == "True"

            del own["mine"]
            define_pools(platform, **own)
            eventually(
                "it is missing altogether",
                lambda: "not defined" in team.condition("chat", "Accepted")["message"],
            )
            team.apply(model("later", pool="mine"))
            team.reaches("later", "True", "Serving")

            own["mine"] = {"image": "ullage-runtime:three", **still}
            define_pools(platform, **own)
            team.reaches("chat", "True", "Accepted", kind="Accepted")
            eventually("the third image is there", lambda: image() == ["ullage-runtime:three"])
    finally:
        define_pools(platform, **POOLS)


def test_what_the_api_server_refuses_of_a_profile_is_told_and_breaks_nothing(
    platform: Cluster, team: Team, tmp_path: Path
) -> None:
    own: dict[str, Any] = {**POOLS, "mine": {"image": "ullage-runtime:one"}}
    define_pools(platform, **own)
    try:
        with operator(platform, tmp_path):
            team.serves("chat", pool="mine")
            own["mine"] = {"image": "x", "resources": {"limits": {"memory": "much"}}}
            define_pools(platform, **own)
            found = team.reaches("chat", "True", "ProfileMissing", kind="Accepted")
            assert "StatefulSet ullage-mine" in found["message"]
            assert team.condition("chat")["status"] == "True"
    finally:
        define_pools(platform, **POOLS)


def test_an_operator_that_is_given_namespaces_looks_at_those_only(
    platform: Cluster, team: Team, tmp_path: Path
) -> None:
    other = f"{team.namespace}-other"
    platform.kubectl("create", "namespace", other)
    try:
        only = json.dumps([team.namespace])
        platform.apply(model("chat"), namespace=other)
        with operator(platform, tmp_path, ULLAGE_OPERATOR_WATCH_NAMESPACES=only):
            team.serves("chat")
        assert platform.get_json("statefulsets", "-n", other)["items"] == []
    finally:
        platform.kubectl("delete", "namespace", other, "--wait=false")


def test_a_deleted_child_comes_back(platform: Cluster, team: Team, tmp_path: Path) -> None:
    with operator(platform, tmp_path):
        team.serves("chat")
        old = team.cluster.get_json("statefulset", "ullage-default", "-n", team.namespace)
        team.kubectl("delete", "statefulset", "ullage-default", "--cascade=foreground")

        def uid() -> Any:
            listed = team.cluster.get_json("statefulsets", "-n", team.namespace)["items"]
            return [s["metadata"]["uid"] for s in listed]

        eventually(
            "it was made anew",
            lambda: uid() and uid() != [old["metadata"]["uid"]],
        )


def test_the_master_key_is_made_once(platform: Cluster, tmp_path: Path) -> None:
    with operator(platform, tmp_path):
        first = platform.get_json("secret", "ullage-operator-key", "-n", SYSTEM)
    with operator(platform, tmp_path):
        again = platform.get_json("secret", "ullage-operator-key", "-n", SYSTEM)
    assert again["data"] == first["data"]
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
