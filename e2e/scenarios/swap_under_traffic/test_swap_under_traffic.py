"""A new version takes over from the old one under fifty streams, and no client notices.

First it does so beside the old one, then in its place: there new requests are held while the old
one finishes and the new one loads, and no longer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from e2e.scenarios.team import Team, model
from e2e.traffic import Traffic, Window
from e2e.windows import P99_REQUESTS, first_token_seconds, too_slow, waits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STREAMS = 50
QUESTION = "Which version are you?"
OLD, NEW = "guide v1", "guide v2"
ENGINE = {"contextLength": 8192, "parallel": 16}
SERVING = {"maxQueue": 1000}
FILES = ("file:guide-v2.gguf", "file:guide-v1.gguf")
SWAPS = 6
"""About as many as it takes."""
MOST_SWAPS = 12
MORE = 1.5
"""How many times as long as before 99 of 100 new requests may wait at the most."""
TURNS = 4
"""How many times as long as before anybody may wait for a token, besides being held."""


def guide(uri: str, **rollout: object) -> dict[str, object]:
    return model("guide", uri, engine=ENGINE, serving=SERVING, rollout=rollout)


def wait_active(team: Team, holds: Callable[[str], bool]) -> None:
    def reached() -> bool:
        active = team.status("guide").get("activeRevision")
        return active is not None and holds(active)

    what = "the other revision answers"
    team.wait(what, reached, timeout=120, show=lambda: team.status("guide"))


def rollout(url: str) -> dict[str, Any]:
    """Return the pod's own account of what answers and of its last swap."""
    at = f"{url.removesuffix('/v1')}/rollouts/guide"
    found: dict[str, Any] = httpx.get(at, timeout=10, trust_env=False).json()
    return found


def last_swap(team: Team, url: str) -> dict[str, Any]:
    """Return the pod's own account of the last swap, once that is over."""
    found: dict[str, Any] = {}

    def is_over() -> bool:
        found.update(rollout(url))
        return found["swap"] is not None and found["swap"]["step"] is None

    team.wait("the swap is over", is_over, timeout=60, show=lambda: found)
    swap: dict[str, Any] = found["swap"]
    return swap


def is_enough(calm: Sequence[Window], during: Sequence[Window]) -> bool:
    """Tell whether there are requests enough on each side, and those of swaps waited no longer."""
    if len(waits(calm)) < P99_REQUESTS:
        return False
    return not too_slow(during, MORE * first_token_seconds(calm, 0.99))


def swapped(team: Team, uri: str, strategy: str, holds: Callable[[str], bool]) -> None:
    """Apply another file, and wait until its revision answers."""
    team.apply(guide(uri, strategy=strategy))
    wait_active(team, holds)


def test_a_swap_under_fifty_streams_fails_and_mixes_none(team: Team) -> None:
    team.apply(guide("file:guide-v1.gguf", strategy="LoadThenDrain"))
    team.wait_condition("guide", "Ready", "True")
    old = team.status("guide")["activeRevision"]
    with (
        team.reach("guide-model") as url,
        Traffic(url, "guide", per_second=5, streams=STREAMS, prompts=(QUESTION,)) as traffic,
    ):
        traffic.wait_for(2 * STREAMS, timeout=120)
        traffic.mark("applied")
        swapped(team, "file:guide-v2.gguf", "LoadThenDrain", lambda active: active != old)
        traffic.mark("swapped")
        beside = last_swap(team, url)
        traffic.wait_for(2 * STREAMS, timeout=120)
        traffic.mark("back")
        swapped(team, "file:guide-v1.gguf", "DrainThenLoad", lambda active: active == old)
        in_place = last_swap(team, url)
        traffic.mark("over")
        traffic.wait_for(2 * STREAMS, timeout=120)

    whole = traffic.window()
    windows = {
        "before": traffic.window("start", "applied"),
        "beside": traffic.window("applied", "swapped"),
        "after": traffic.window("swapped", "back"),
        "in place": traffic.window("back", "over"),
        "at last": traffic.window("over"),
    }
    print("swaps:", json.dumps({name: window.summary() for name, window in windows.items()}))
    for window in (whole, *windows.values()):
        window.require(texts=[OLD, NEW])
    assert whole.most_at_once >= STREAMS
    # Each answer is wholly one version's: a splice would be a third text.
    assert all((OLD in text) != (NEW in text) for text in whole.answers), whole.answers
    for name, text in (("after", NEW), ("at last", OLD)):
        assert all(text in o.text for o in windows[name].whole if not o.failed)
    assert team.condition("guide", "Ready")["status"] == "True"

    assert (beside["strategy"], in_place["strategy"]) == ("LoadThenDrain", "DrainThenLoad")
    assert beside["drain_seconds"] is None
    held, usual = (windows[name].longest_stall for name in ("in place", "before"))
    print(f"held: {held:.2f} s at the longest, {usual:.2f} s as usual; the pod says: {in_place}")
    windows["beside"].require(stall=TURNS * usual)
    # Drain and load together, and then a turn in the queue that has grown meanwhile.
    windows["in place"].require(stall=in_place["seconds"] + TURNS * usual)
    assert 0 < in_place["drain_seconds"] <= in_place["seconds"]


def test_new_requests_hardly_feel_a_swap_beside_the_old_version(team: Team) -> None:
    team.apply(guide("file:guide-v1.gguf", strategy="LoadThenDrain"))
    team.wait_condition("guide", "Ready", "True")
    calm: list[Window] = []
    during: list[Window] = []
    with (
        team.reach("guide-model") as url,
        Traffic(url, "guide", per_second=5, streams=STREAMS, prompts=(QUESTION,)) as traffic,
    ):
        traffic.wait_for(2 * STREAMS, timeout=120)
        # A swap takes too short a time for a percentile, so there are several; beside each is a
        # calm stretch of its own, for what else the machine does changes with time. What one slow
        # moment says is outweighed by more swaps, if it was no more than that.
        while not is_enough(calm, during) and len(during) < MOST_SWAPS:
            number = len(during)
            traffic.mark(f"calm-{number}")
            team.wait(
                "a calm stretch has requests enough",
                lambda since=f"calm-{number}": (  # type: ignore[misc]
                    len(waits([traffic.window(since)])) >= P99_REQUESTS / SWAPS
                ),
                timeout=120,
            )
            traffic.mark(f"begin-{number}")
            old = rollout(url)["active"]
            team.apply(guide(FILES[number % len(FILES)], strategy="LoadThenDrain"))
            team.wait(
                "the other revision answers",
                # Of the pod: to ask the API server takes a process, and CPU, each time.
                lambda old=old: rollout(url)["active"] not in {old, None},  # type: ignore[misc]
            )
            traffic.mark(f"end-{number}")
            last_swap(team, url)
            calm.append(traffic.window(f"calm-{number}", f"begin-{number}"))
            during.append(traffic.window(f"begin-{number}", f"end-{number}"))
        traffic.wait_for(STREAMS, timeout=120)

    traffic.window().require(texts=[OLD, NEW])
    stalls = [max(window.longest_stall for window in windows) for windows in (calm, during)]
    usual, felt = (first_token_seconds(windows, 0.99) for windows in (calm, during))
    figures = {
        "swaps": len(during),
        "before": {"requests": len(waits(calm)), "p99_ms": round(1000 * usual)},
        "during": {"requests": len(waits(during)), "p99_ms": round(1000 * felt)},
        "longest_stalls_ms": [round(1000 * seconds) for seconds in stalls],
        "ratio": round(felt / usual, 2),
    }
    print("p99 of new requests, during swaps and before them:", json.dumps(figures))
    assert not too_slow(during, MORE * usual)
    for window in during:
        window.require(stall=TURNS * stalls[0])
