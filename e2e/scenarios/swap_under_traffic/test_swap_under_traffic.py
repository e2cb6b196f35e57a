"""A new version takes over from the old one under fifty streams, and no client notices."""

from __future__ import annotations

import json

from e2e.scenarios.team import Team, model
from e2e.traffic import Traffic

STREAMS = 50
QUESTION = "Which version are you?"
OLD, NEW = "guide v1", "guide v2"
ENGINE = {"contextLength": 8192, "parallel": 16}
SERVING = {"maxQueue": 256}


ROLLOUT = {"strategy": "LoadThenDrain"}


def guide(uri: str) -> dict[str, object]:
    return model("guide", uri, engine=ENGINE, serving=SERVING, rollout=ROLLOUT)


def test_a_swap_under_fifty_streams_fails_and_mixes_none(team: Team) -> None:
    team.apply(guide("file:guide-v1.gguf"))
    team.wait_condition("guide", "Ready", "True")
    old = team.status("guide")["activeRevision"]
    with (
        team.reach("guide-model") as url,
        Traffic(url, "guide", per_second=5, streams=STREAMS, prompts=(QUESTION,)) as traffic,
    ):
        traffic.wait_for(2 * STREAMS, timeout=120)
        traffic.mark("applied")
        team.apply(guide("file:guide-v2.gguf"))
        team.wait(
            "the new revision answers",
            lambda: team.status("guide").get("activeRevision") not in {None, old},
            timeout=120,
            show=lambda: team.status("guide"),
        )
        traffic.mark("swapped")
        traffic.wait_for(2 * STREAMS, timeout=120)

    whole = traffic.window()
    windows = {
        "before": traffic.window("start", "applied"),
        "during": traffic.window("applied", "swapped"),
        "after": traffic.window("swapped"),
    }
    print("swap:", json.dumps({name: window.summary() for name, window in windows.items()}))
    assert whole.failures == []
    assert whole.mixed([OLD, NEW]) == []
    assert whole.most_at_once >= STREAMS
    # Each answer is wholly one version's: a splice would be a third text.
    assert all((OLD in text) != (NEW in text) for text in whole.answers), whole.answers
    last = windows["after"].started
    assert all(NEW in o.text for o in last if not o.failed)
    assert team.condition("guide", "Ready")["status"] == "True"
