"""A new version gets its share, then everything, on one pod and then on the next; all of it shows.

A version that does not pass its checks gets no share at all, on any pod. One that passes them and
then is slower than the one before, or fails, is taken back from its first share.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.scenarios.lesser_models import write_failing, write_slower
from e2e.scenarios.platform import EXAMPLES
from e2e.scenarios.team import MDEP, Team, model
from e2e.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from e2e.scenarios.file_server import FileServer

QUESTION = "Which version are you?"
OLD, NEW = "guide v1", "guide v2"
STEPS = [{"weight": 20, "seconds": 6}, {"weight": 50, "seconds": 6}]
SECONDS = 5
ROLLOUT: dict[str, Any] = {"canary": {"steps": STEPS}, "watchSeconds": SECONDS}
HALF: dict[str, Any] = {
    "canary": {"steps": [{"weight": 50, "seconds": 300}], "maxLatencyRatioPercent": 150}
}
BAD: dict[str, Any] = {"validation": [{"prompt": QUESTION, "expect": {"contains": "guide v3"}}]}


def guide(uri: str, replicas: int = 2, **rollout: Any) -> dict[str, object]:
    return model("guide", uri, replicas=replicas, rollout=rollout)


def notes(team: Team) -> list[str]:
    """Return what Events say of the model, in the order in which it happened."""
    listed = team.cluster.get_json("events.events.k8s.io", "--namespace", team.namespace)["items"]
    mine = [event for event in listed if event["regarding"]["name"] == "guide"]
    return [event["note"] for event in sorted(mine, key=lambda event: event["eventTime"])]


def in_order(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """Return whether there is a note for each beginning that is wanted, one after the other."""
    rest = iter(found)
    return all(any(note.startswith(each) for note in rest) for each in wanted)


def on_each_pod(status: dict[str, Any]) -> list[str]:
    return [placement.get("revision", "") for placement in status.get("placements", ())]


def both_have(team: Team, revision: str) -> None:
    team.wait(
        "both pods have it",
        lambda: (
            on_each_pod(team.status("guide")) == [revision] * 2
            and team.status("guide").get("transition") == "UpToDate"
        ),
        timeout=120,
        show=lambda: team.status("guide"),
    )


def test_a_canary_goes_from_share_to_share_and_from_pod_to_pod(team: Team) -> None:
    team.apply(guide("file:guide-v1.gguf"))
    team.wait_condition("guide", "Progressing", "False", "UpToDate")
    old = team.status("guide")["activeRevision"]
    both_have(team, old)
    seen: list[list[str]] = [[old, old]]
    shares: list[dict[str, int]] = []

    def is_over() -> bool:
        status = team.status("guide")
        if on_each_pod(status) != seen[-1]:
            seen.append(on_each_pod(status))
        share = {arm["revision"]: arm["weight"] for arm in status.get("arms", ())}
        if share and share not in shares:
            shares.append(share)
        return len(seen) > 2 and status["transition"] == "UpToDate"

    with (
        team.reach("guide-model") as url,
        Traffic(url, "guide", per_second=10, prompts=(QUESTION,), max_tokens=16) as traffic,
    ):
        team.apply(guide("file:guide-v2.gguf", **ROLLOUT))
        team.wait("both pods have it", is_over, timeout=120, show=lambda: (seen, shares))
        traffic.mark("over")
        traffic.wait_for(20)

    status = team.status("guide")
    new = status["activeRevision"]
    print("canary:", json.dumps({"arms": status["arms"], "events": notes(team)}))
    assert seen == [[old, old], [new, old], [new, new]]
    assert shares == [{old: 80, new: 20}, {old: 50, new: 50}, {old: 0, new: 100}]
    assert all(arm["requests"] > 0 and arm["errors"] == 0 for arm in status["arms"])
    assert all(arm["tokenMicrosecondsP50"] > 0 for arm in status["arms"])
    story = [
        f"revision {old} answers until the next one takes over",
        f"revision {new} gets 20 % of the requests for 6 s",
        f"revision {new} gets 50 % of the requests for 6 s",
        f"revision {new} answers and is watched for 5 s",
        "2 of 2 pods serve the target",
    ]
    assert in_order(story, notes(team)), notes(team)
    whole = traffic.window()
    whole.require(texts=[OLD, NEW])
    assert all(NEW in o.text for o in traffic.window("over").whole)

    team.apply(guide("file:guide-v1.gguf", **BAD))
    team.wait_condition("guide", "Progressing", "False", "ValidationFailed")
    status = team.status("guide")
    assert (status["transition"], on_each_pod(status)) == ("BlockedByFailedLoad", [new, new])
    assert status["readyReplicas"] == 2
    assert "BlockedByFailedLoad" in team.kubectl("get", MDEP, "guide", "-o", "yaml").stdout


@pytest.mark.parametrize(
    ("write", "why"),
    [(write_slower, "a token takes"), (write_failing, "of its {requests} requests failed")],
)
def test_a_canary_that_does_worse_is_taken_back_by_itself(
    team: Team, files: FileServer, tmp_path: Path, write: Callable[[Path, Path], Path], why: str
) -> None:
    worse = files.put(write(EXAMPLES / "models" / "guide-v1.gguf", tmp_path / "worse.gguf"))
    team.apply(guide("file:guide-v1.gguf", replicas=1))
    team.wait_condition("guide", "Progressing", "False", "UpToDate")
    old = team.status("guide")["activeRevision"]
    with (
        team.reach("guide-model") as url,
        Traffic(url, "guide", per_second=10, prompts=(QUESTION,), max_tokens=8) as traffic,
    ):
        traffic.wait_for(10)
        team.apply(guide(worse, replicas=1, **HALF))
        team.wait_condition("guide", "Progressing", "False", "RolledBack")
        traffic.mark("back")
        traffic.wait_for(20)

    status = team.status("guide")
    new = status["targetRevision"]
    older, newer = status["arms"]
    whole, back = traffic.window(), traffic.window("back")
    told = {"arms": status["arms"], "failures": whole.failures, "events": notes(team)}
    print(f"{write.__name__}:", json.dumps(told))
    assert (status["transition"], status["activeRevision"]) == ("RolledBack", old)
    assert (older["revision"], newer["revision"]) == (old, new)
    outcomes = {each["name"]: each["outcome"] for each in status["revisions"]}
    assert outcomes == {old: "Good", new: "Failed"}
    assert team.condition("guide", "Ready")["status"] == "True"
    story = [
        f"revision {old} answers until the next one takes over",
        f"revision {new} gets 50 % of the requests for 300 s",
        "the new revision was taken back: with 50 % of the requests ",
    ]
    assert in_order(story, notes(team)), notes(team)
    assert any(why.format(**newer) in note for note in notes(team)), notes(team)
    # Only who was asked to try the failing one saw it fail, and nobody since.
    assert newer["errors"] <= len(whole.failures) <= newer["errors"] + 1, (whole.failures, newer)
    assert all("invalid_output" in failure for failure in whole.failures), whole.failures
    assert [o.error for o in back.started if o.failed] == []
    assert all("guide v1" in o.text for o in back.started if o.ended is not None)
