"""A system in which nothing changes writes nothing, and a change shows at once."""

import json
import statistics
import time
from datetime import UTC, datetime

from e2e.scenarios.platform import AFTER_TRAFFIC_SECONDS, Platform
from e2e.scenarios.team import MDEP, Team, model

QUIET_SECONDS = 60
CHANGES = 20


def test_re_applying_unchanged_yaml_writes_nothing(platform: Platform, ready: Team) -> None:
    platform.wait_until_settled(ready.namespace, seconds=AFTER_TRAFFIC_SECONDS)
    since = datetime.now(UTC)
    for _ in range(3):
        ready.apply(model("guide"))
    platform.wait_until_settled(ready.namespace)
    assert platform.operator_writes(since=since, namespace=ready.namespace) == []


def test_an_unchanged_system_writes_nothing_for_a_minute(platform: Platform, ready: Team) -> None:
    platform.wait_until_settled(ready.namespace, seconds=AFTER_TRAFFIC_SECONDS)
    since = datetime.now(UTC)
    deadline = time.monotonic() + QUIET_SECONDS
    ready.wait("a minute passes", lambda: time.monotonic() >= deadline, timeout=QUIET_SECONDS + 5)
    assert platform.operator_writes(since=since, namespace=ready.namespace) == []


def test_a_change_of_the_spec_shows_in_status(ready: Team) -> None:
    seconds = []
    for number in range(CHANGES):
        started = time.monotonic()
        ready.patch("guide", {"serving": {"maxQueue": 10 + number}})
        generation = ready.cluster.get_json(MDEP, "guide", "-n", ready.namespace)["metadata"][
            "generation"
        ]
        ready.wait(
            f"generation {generation} is observed",
            lambda wanted=generation: ready.status("guide").get("observedGeneration") == wanted,  # type: ignore[misc]
            timeout=30,
        )
        seconds.append(time.monotonic() - started)
    ordered = sorted(seconds)
    figures = {
        "changes": CHANGES,
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(0.95 * (CHANGES - 1))], 3),
        "max": round(ordered[-1], 3),
    }
    print("spec change to status, seconds:", json.dumps(figures))
