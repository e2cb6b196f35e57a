"""Three models share memory for two: everybody is answered, and it is told who left for whom."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from e2e.scenarios.team import MDEP, Team, model
from e2e.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL = "tight"
NAMES = ("amber", "birch", "cedar")
CONTEXT = 163_840
"""A key-value cache of 400 MiB; two such models fit the pool's budget of 1.1 GiB, three do not."""
LESS = 143_360
"""With it two leave no room for a third either, and memory is not called short."""
SECONDS = 25.0
SAID_SECONDS = 2.0
"""How soon after its creation a model says that it can never fit."""
OWN_LOAD = 2.0
"""Processes that wait for each CPU while only the node and this test are at work."""


def tight(name: str, context: int = CONTEXT) -> dict[str, Any]:
    uri = "file:guide-v2.gguf" if name == "birch" else "file:guide-v1.gguf"
    return model(name, uri, pool=POOL, engine={"contextLength": context, "parallel": 4})


@contextlib.contextmanager
def traffic_to_all(team: Team) -> Iterator[list[Traffic]]:
    """Ask each model once a second, through its own Service."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(team.reach(f"{name}-model")) for name in NAMES]
        yield [
            stack.enter_context(Traffic(url, name, per_second=1, max_tokens=16))
            for url, name in zip(urls, NAMES, strict=True)
        ]


def rows(team: Team) -> dict[str, dict[str, str]]:
    """Return what `kubectl get mdep -o wide` shows, by model and column."""
    lines = team.kubectl("get", MDEP, "-o", "wide").stdout.splitlines()
    head = lines[0]
    starts = [head.index(word) for word in head.split()]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    cells = [[line[a:b].strip() for a, b in spans] for line in lines[1:]]
    return {c[0]: dict(zip(head.split(), c, strict=True)) for c in cells}


def evictions(team: Team) -> list[str]:
    """Return the notes of all Events that tell of an eviction."""
    listed = team.cluster.get_json("events.events.k8s.io", "--namespace", team.namespace)["items"]
    return [event["note"] for event in listed if event["reason"] == "Evicted"]


def seconds_to_status(team: Team, name: str, since: datetime) -> list[float]:
    """Return when each status of a model was written, counted from the model's creation."""
    events = [
        event
        for event in team.cluster.audit_events(since=since, writes_only=True)
        if (event.resource, event.namespace, event.name)
        == (MDEP.split(".")[0], team.namespace, name)
    ]
    (created,) = (e.received for e in events if e.verb in {"create", "patch"} and not e.subresource)
    return [
        round((e.received - created).total_seconds(), 2)
        for e in events
        if e.subresource == "status"
    ]


def test_three_models_take_turns_in_memory_for_two_and_all_are_answered(team: Team) -> None:
    team.apply(*(tight(name) for name in NAMES))
    for name in NAMES:
        team.wait_condition(name, "Ready", "True")

    seen: list[dict[str, dict[str, str]]] = []
    with traffic_to_all(team) as traffics:
        deadline = time.monotonic() + SECONDS

        def all_was_seen() -> bool:
            seen.append(rows(team))
            out = {n for table in seen for n in NAMES if table[n]["RESIDENCY"] != "Resident"}
            there = {n for table in seen for n in NAMES if table[n]["RESIDENCY"] == "Resident"}
            return there == set(NAMES) and len(out) > 1 and time.monotonic() > deadline

        team.wait("models come and go", all_was_seen, timeout=120, show=lambda: seen[-1])
    windows = {t.model: t.window() for t in traffics}
    print("memory pressure:", json.dumps({name: w.summary() for name, w in windows.items()}))
    for window in windows.values():
        window.require()
        assert len(window.started) >= SECONDS - 1

    for table in seen:
        assert sum(row["RESIDENCY"] == "Resident" for row in table.values()) <= 2
        for row in table.values():
            assert row["READY"] == "True", row
            if row["RESIDENCY"] == "Resident":
                assert row["VRAM"] not in {"", "0"}, row
            assert row["LEVEL"] in {"Low", "Moderate", "High", "Critical"}, row
    # Two models stay. What comes and goes with the traffic is written at most twice a minute.
    team.wait(
        "LEVEL tells of the two that stay",
        lambda: any(
            row["LEVEL"] in {"Moderate", "High", "Critical"} for row in rows(team).values()
        ),
        timeout=120,
        show=lambda: rows(team),
    )

    for name in NAMES:
        assert float(team.status(name)["performance"]["loadSeconds"]) > 0

    explained = evictions(team)
    for_others = [note for note in explained if "left memory for model" in note]
    assert for_others
    assert all("rule Demand" in note or "rule Turn" in note for note in for_others), explained
    # While one leaves and the next one loads memory may be full, and then whoever is idle leaves.
    assert all("rule Level" in note for note in explained if note not in for_others), explained
    left = [m for n in NAMES if (m := team.status(n)["memory"].get("lastEviction"))]
    assert left
    for last in left:
        assert last["rule"] == "Level" or last["for"] in NAMES
        assert last["bytes"] > 400 << 20


def crowding() -> float:
    """Return how many times as long everything takes as where the node has the CPUs for itself."""
    return max(1.0, os.getloadavg()[0] / (OWN_LOAD * (os.cpu_count() or 1)))


def wait_for_rest(team: Team) -> None:
    """Wait until an engine stands ready for the next load: more than the models account for."""
    with team.reach("amber-model") as url:
        at = url.removesuffix("/v1")
        seen: list[int] = []

        def has_more() -> bool:
            memory = httpx.get(f"{at}/memory/stats", timeout=10, trust_env=False).json()
            models = httpx.get(f"{at}/memory/models", timeout=10, trust_env=False).json()
            seen[:] = [
                memory["devices"][0]["ledger"],
                *(m["resident"] or 0 for m in models["data"]),
            ]
            return seen[0] - sum(seen[1:]) > 16 << 20

        team.wait("an engine stands ready", has_more, timeout=60, show=lambda: seen)


def test_a_model_that_can_never_fit_says_so_at_once_and_evicts_nobody(team: Team) -> None:
    team.apply(tight("amber", LESS), tight("birch", LESS))
    for name in ("amber", "birch"):
        team.wait_condition(name, "Ready", "True")
    wait_for_rest(team)
    since = datetime.now(UTC)
    team.apply(tight("giant", 4_194_304))
    # One watch: to ask again and again takes the CPU of those who are to answer.
    reason = '{.status.conditions[?(@.type=="Ready")].reason}'
    wait = ("wait", f"{MDEP}/giant", f"--for=jsonpath={reason}=WillNeverFit", "--timeout=60s")
    team.kubectl(*wait, timeout=70)
    condition = team.wait_condition("giant", "Ready", "False", "WillNeverFit")
    steps, crowd = seconds_to_status(team, "giant", since), crowding()
    figures = {"status_written": steps, "crowding": round(crowd, 1)}
    print("WillNeverFit, seconds after its creation:", json.dumps(figures))
    assert steps[-1] <= SAID_SECONDS * crowd
    assert "GiB" in condition["message"]
    assert "budget" in condition["message"]
    with team.reach("giant-model") as url:
        body = {"model": "giant", "messages": [{"role": "user", "content": "Hello"}]}
        began = time.monotonic()
        refused = httpx.post(f"{url}/chat/completions", json=body, timeout=60)
        print("507 after", json.dumps({"seconds": round(time.monotonic() - began, 2)}))
    assert refused.status_code == 507
    error = refused.json()["error"]
    assert error["code"] == "insufficient_memory"
    assert error["required"] > error["budget"] > 0
    assert error["largest_component"]
    assert error["suggestions"]
    assert evictions(team) == []
    assert all(rows(team)[name]["RESIDENCY"] == "Resident" for name in ("amber", "birch"))
