"""What `ullage top` makes of a pod's messages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from ullage_runtime.cli.top.feed import FIRST_PAUSE, LONGEST_PAUSE, pause_before
from ullage_runtime.cli.top.picture import KEPT_DECISIONS, Picture
from ullage_runtime.cli.top.rendering import (
    age,
    decision_line,
    devices_table,
    model_cells,
    model_columns,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GIB = 1 << 30


def device(**fields: Any) -> dict[str, Any]:
    return {
        "id": "gpu0",
        "name": "NVIDIA H100",
        "level": "High",
        "total": 80 * GIB,
        "budget": 72 * GIB,
        "used": 64 * GIB,
        "ledger": 60 * GIB,
        "throttling": [],
        "stalled": None,
        **fields,
    }


def model(name: str = "chat", **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "residency": "Resident",
        "reason": "Serving",
        "message": "",
        "final": False,
        "revision": "0a1b2c3d4e",
        "device": "CPU",
        "estimated": 2 * GIB,
        "resident": GIB,
        "fetched": None,
        "fetch_total": None,
        "requests_running": 0,
        "requests_waiting": 0,
        "generated_tokens": 0,
        **fields,
    }


def decision(number: int = 1, beneficiary: str | None = "other", **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "time": NOON.isoformat(),
        "kind": "eviction",
        "rule": "Demand",
        "model": "chat",
        "bytes": GIB,
        "for": beneficiary,
        "message": "made room",
        **fields,
    }


def message(kind: str = "status.state", seconds: float = 0, **fields: Any) -> dict[str, Any]:
    return {
        "object": kind,
        "cursor": "boot.1.0",
        "time": (NOON + timedelta(seconds=seconds)).isoformat(),
        "pod": "ullage-default-0",
        "level": "High",
        "devices": [],
        "models": [],
        "gone": [],
        "decisions": [],
        **fields,
    }


def changes(**fields: Any) -> dict[str, Any]:
    return message("status.changes", **fields)


def drawn(what: Any, width: int) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_changes_add_to_what_is_known_and_a_state_replaces_it() -> None:
    picture = Picture()
    picture.take(message(devices=[device()], models=[model(), model("other")]), 0)
    picture.take(changes(models=[{"id": "chat", "requests_running": 3}], gone=["other"]), 1)
    (row,) = picture.rows()
    assert (row["requests_running"], row["residency"]) == (3, "Resident")
    picture.take(message(models=[model("new")], decisions=[decision(1)]), 2)
    assert [row["id"] for row in picture.rows()] == ["new"]
    assert picture.devices == {}


def test_decisions_are_newest_first_and_bounded() -> None:
    picture = Picture()
    picture.take(message(decisions=[decision(2), decision(1)]), 0)
    picture.take(changes(decisions=[decision(4), decision(3)]), 0)
    assert [d["id"] for d in picture.decisions] == [4, 3, 2, 1]
    picture.take(changes(decisions=[decision(n) for n in range(200, 4, -1)]), 0)
    assert len(picture.decisions) == KEPT_DECISIONS
    assert picture.decisions[0]["id"] == 200


def test_tokens_per_second_are_counted_over_seconds_and_fall_to_nothing() -> None:
    picture = Picture()
    picture.take(message(models=[model()]), 0)
    assert picture.tokens_per_second("chat") is None
    for second in range(1, 6):
        picture.take(changes(models=[{"id": "chat", "generated_tokens": 40 * second}]), second)
    assert picture.tokens_per_second("chat") == pytest.approx(40)
    for second in range(6, 12):
        picture.count(second)
    assert picture.tokens_per_second("chat") == 0
    assert picture.tokens_per_second("nobody") is None


def test_ages_are_told_by_the_pods_clock() -> None:
    picture = Picture()
    picture.take(message(seconds=90, decisions=[decision()]), 1000.0)
    assert picture.age(picture.decisions[0], 1005.0) == pytest.approx(95)
    assert [age(s) for s in (0, 59, 60, 3600, 90_000)] == ["0 s", "59 s", "1 min", "1 h", "1 d"]


@pytest.mark.parametrize("width", [78, 158])
def test_everything_fits_its_line(width: int) -> None:
    picture = Picture()
    long = "x" * 40
    hot = device(throttling=["thermal", "power_cap"], stalled=0.1)
    picture.take(
        message(
            devices=[hot, device(id="host", level=None)],
            models=[model(long), model("short", residency="Disk", resident=None)],
            decisions=[decision(model=long, message="m" * 300, beneficiary=long)],
        ),
        0,
    )
    for line in drawn(devices_table(picture, width), width).splitlines():
        assert len(line) <= width
    text = drawn(devices_table(picture, width), width)
    assert "80 %" in text
    assert "thermal" in text
    assert "unread" in text
    columns = model_columns(width)
    for row in picture.rows():
        cells = model_cells(picture, row, width)
        assert len(cells) == len(columns)
        assert sum(len(cell.plain) + 2 for cell in cells) <= width
    said = decision_line(picture, picture.decisions[0], 0, width)
    assert len(said.plain) <= width


def test_a_refusal_and_an_eviction_read_differently() -> None:
    picture = Picture()
    picture.take(message(decisions=[decision()]), 0)
    evicted = decision_line(picture, decision(), 0, 100).plain
    assert "chat left Demand 1.0 GiB for other" in evicted
    refused = decision(kind="refusal", rule="NeverFits", beneficiary=None)
    assert "chat got no memory NeverFits 1.0 GiB" in decision_line(picture, refused, 0, 100).plain


def test_pauses_grow_to_a_bound() -> None:
    assert FIRST_PAUSE * 0.75 <= pause_before(1) <= FIRST_PAUSE
    assert all(
        LONGEST_PAUSE * 0.75 <= pause_before(attempt) <= LONGEST_PAUSE for attempt in (6, 20, 500)
    )


@pytest.mark.parametrize(("count", "lines", "more"), [(9, 9, None), (10, 10, None), (58, 10, 49)])
def test_more_devices_than_there_are_lines_for_are_counted(
    count: int, lines: int, more: int | None
) -> None:
    picture = Picture()
    picture.take(message(devices=[device(id=f"gpu{number}") for number in range(count)]), 0)
    shown = drawn(devices_table(picture, 80), 80).splitlines()
    assert len(shown) == lines
    assert shown[0].startswith("gpu0 ")
    if more is not None:
        assert shown[-1].startswith(f"{more} more devices")
