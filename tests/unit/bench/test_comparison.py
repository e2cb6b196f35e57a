"""What is made of a benchmark's runs: medians, ratios and a picture."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.comparison import cells, ratios
from bench.picture import drawn


def run(server: str, width: int, speed: float, *, failed: int = 0) -> dict[str, Any]:
    return {
        "server": server,
        "concurrency": width,
        "requests": 8,
        "completed": 8 - failed,
        "tokensPerSecond": speed,
        "firstTokenSeconds": {"p50": 0.1, "p95": 1 / speed},
        "interTokenSeconds": {"p50": None, "p99": None},
        "cpuSeconds": 1.0,
    }


RUNS = [
    *(run("ours", 1, speed) for speed in (10, 30, 20)),
    *(run("ours", 4, speed) for speed in (80, 80)),
    *(run("theirs", 1, speed) for speed in (10, 10)),
    run("theirs", 4, 40, failed=3),
]


def test_runs_become_medians_with_their_ends() -> None:
    found = {(cell.server, cell.concurrency): cell for cell in cells(RUNS)}
    ours = found["ours", 1]
    assert ours.runs == 3
    assert ours.metrics["tokensPerSecond"].to_wire() == {"median": 20, "min": 10, "max": 30}
    assert "interTokenP99" not in ours.metrics
    assert found["theirs", 4].failed == 3


def test_ratios_are_geometric_means_of_medians() -> None:
    speed, first_token = ratios(cells(RUNS), "ours")
    assert speed.by_width == {1: 2.0, 4: 2.0}
    assert speed.mean == pytest.approx(2)
    assert first_token.mean == pytest.approx(0.5)
    assert speed.to_wire()["byConcurrency"] == {"1": 2.0, "4": 2.0}


def test_there_is_no_ratio_to_nobody_or_of_nobody() -> None:
    assert list(ratios(cells(RUNS[:5]), "ours")) == []
    assert list(ratios(cells(RUNS), "nobody")) == []


@pytest.mark.parametrize("runs", [RUNS, RUNS[:1], []], ids=["several", "one", "none"])
def test_a_picture_is_drawn_of_whatever_there_is(runs: list[dict[str, Any]]) -> None:
    picture = ET.fromstring(drawn(cells(runs), "Title & more", "note"))  # noqa: S314 - our own
    words = [element.text for element in picture.iter() if element.tag.endswith("text")]
    assert "Title & more" in words
    assert [w for w in words if w in {"ours", "theirs"}] == sorted({r["server"] for r in runs})
