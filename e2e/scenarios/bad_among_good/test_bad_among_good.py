"""Bad models say what is wrong with them, and the good one beside them goes on serving."""

from collections.abc import Callable
from typing import Any

import pytest

from e2e.scenarios.file_server import FileServer
from e2e.scenarios.team import Team, model
from e2e.traffic import Traffic

Case = tuple[str, Callable[[FileServer], dict[str, object]], str, str, list[str]]

CASES: list[Case] = [
    ("missing", lambda _: {"uri": "file:nowhere.gguf"}, "", "SourceUnavailable", ["nowhere.gguf"]),
    (
        "digest",
        lambda _: {"uri": "file:guide-v1.gguf", "sha256": "0" * 64},
        "False",
        "ChecksumMismatch",
        ["0" * 12],
    ),
    (
        "truncated",
        lambda files: {"uri": files.url("truncated.gguf")},
        "False",
        "InvalidModel",
        ["truncated"],
    ),
    (
        "text",
        lambda files: {"uri": files.url("text.gguf")},
        "False",
        "InvalidModel",
        ["GGUF"],
    ),
    (
        "absent",
        lambda files: {"uri": files.url("absent.gguf")},
        "False",
        "SourceUnavailable",
        ["404"],
    ),
    (
        "forbidden",
        lambda files: {"uri": files.url("forbidden.gguf")},
        "False",
        "SourceUnavailable",
        ["403"],
    ),
    (
        "silent",
        lambda files: {"uri": files.url("silent.gguf")},
        "",
        "SourceUnavailable",
        ["sent nothing"],
    ),
]


@pytest.mark.parametrize(
    ("name", "source", "ready", "reason", "words"), CASES, ids=[c[0] for c in CASES]
)
def test_a_bad_source_has_its_own_reason_and_says_what_it_saw(
    team: Team,
    files: FileServer,
    name: str,
    source: Callable[[FileServer], dict[str, object]],
    ready: str,
    reason: str,
    words: list[str],
) -> None:
    team.apply(model(name, **source(files)))  # type: ignore[arg-type]
    said: dict[str, dict[str, Any]] = {}

    def is_said() -> bool:
        # What is tried again is soon being fetched again, so all is of one moment.
        found = team.status(name).get("conditions", [])
        said.update((c["type"], c) for c in found)
        return any(c["reason"] == reason for c in found)

    team.wait(f"{name}: {reason}", is_said, timeout=150, show=lambda: team.status(name))
    if ready:
        assert said["Ready"]["status"] == ready
    else:
        assert said["Ready"]["status"] == "Unknown", "not final, so Ready must not be False"
    text = " ".join(c["message"] for c in said.values())
    for word in words:
        assert word.lower() in text.lower()
    described = team.kubectl("describe", "mdep", name).stdout
    assert reason in described


def test_a_model_larger_than_the_budget_says_so_with_numbers(team: Team) -> None:
    team.apply(model("giant", engine={"contextLength": 4194304}))
    condition = team.wait_condition("giant", "Ready", "False", "WillNeverFit")
    assert "GiB" in condition["message"]
    assert "contextLength" in condition["message"]


def test_an_unknown_pool_lists_the_known_ones(team: Team) -> None:
    team.apply(model("lost", pool="nowhere"))
    condition = team.wait_condition("lost", "Accepted", "False", "UnknownPool")
    assert "default" in condition["message"]


def test_the_good_model_serves_while_bad_ones_come_and_go(ready: Team) -> None:
    with ready.reach("guide-model") as url, Traffic(url, "guide", per_second=4) as traffic:
        traffic.wait_for(8)
        ready.apply(
            model("wrong", "file:guide-v1.gguf", sha256="0" * 64),
            model("giant", engine={"contextLength": 4194304}),
            model("gone", "file:nowhere.gguf"),
        )
        ready.wait_condition("wrong", "Ready", "False", "ChecksumMismatch")
        ready.wait_condition("giant", "Ready", "False", "WillNeverFit")
        ready.kubectl("delete", "mdep", "wrong", "giant", "gone", "--timeout=60s")
        traffic.wait_for(8)
    traffic.window().require()
    assert ready.condition("guide", "Ready")["status"] == "True"
    (pod,) = ready.pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
