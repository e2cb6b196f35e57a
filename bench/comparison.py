"""Runs made comparable: medians with their ends, and ratios against an opponent."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Run = Mapping[str, Any]
"""One server under one load once: `server`, `concurrency` and the load's measurements."""

METRICS: Final[dict[str, tuple[str, ...]]] = {
    "tokensPerSecond": ("tokensPerSecond",),
    "firstTokenP50": ("firstTokenSeconds", "p50"),
    "firstTokenP95": ("firstTokenSeconds", "p95"),
    "interTokenP50": ("interTokenSeconds", "p50"),
    "interTokenP99": ("interTokenSeconds", "p99"),
    "cpuSeconds": ("cpuSeconds",),
}
"""What is compared, and where it lies in a run."""


@dataclass(frozen=True, slots=True)
class Middle:
    """The median of several runs, and the runs it lies between."""

    median: float
    low: float
    high: float

    def to_wire(self) -> dict[str, float]:
        """Return it as it is kept."""
        return {"median": self.median, "min": self.low, "max": self.high}


@dataclass(frozen=True, slots=True)
class Cell:
    """One server under one load, all runs together."""

    server: str
    concurrency: int
    runs: int
    failed: int
    metrics: dict[str, Middle]

    def to_wire(self) -> dict[str, Any]:
        """Return it as it is kept."""
        values = {name: middle.to_wire() for name, middle in self.metrics.items()}
        head = {"server": self.server, "concurrency": self.concurrency}
        return {**head, "runs": self.runs, "failed": self.failed, **values}


def cells(runs: Sequence[Run]) -> list[Cell]:
    """Return the runs of each server and load taken together, in order of appearance."""
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        found.setdefault((run["server"], run["concurrency"]), []).append(run)
    return [_cell(server, width, group) for (server, width), group in found.items()]


def _cell(server: str, width: int, runs: Sequence[Run]) -> Cell:
    metrics = {}
    for name, path in METRICS.items():
        values = [value for run in runs if (value := _at(run, path)) is not None]
        if values:
            metrics[name] = Middle(statistics.median(values), min(values), max(values))
    failed = sum(run["requests"] - run["completed"] for run in runs)
    return Cell(server, width, len(runs), failed, metrics)


def _at(run: Run, path: Sequence[str]) -> float | None:
    value: Any = run
    for part in path:
        value = value.get(part)
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as much one server does as another, by the load's width."""

    metric: str
    of: str
    to: str
    by_width: dict[int, float]

    @property
    def mean(self) -> float:
        """The geometric mean over all widths."""
        return math.exp(statistics.fmean(math.log(r) for r in self.by_width.values()))

    def to_wire(self) -> dict[str, Any]:
        """Return it as it is kept."""
        widths = {str(width): round(ratio, 4) for width, ratio in self.by_width.items()}
        head = {"metric": self.metric, "of": self.of, "to": self.to}
        return {**head, "geometricMean": round(self.mean, 4), "byConcurrency": widths}


def ratios(found: Sequence[Cell], first: str) -> Iterator[Ratio]:
    """Yield a server's ratios to each other one, of throughput and of the time to first token."""
    by_place = {(cell.server, cell.concurrency): cell for cell in found}
    widths = [width for server, width in by_place if server == first]
    for other in dict.fromkeys(cell.server for cell in found if cell.server != first):
        for metric in ("tokensPerSecond", "firstTokenP95"):
            by_width = {}
            for width in widths:
                ours, theirs = by_place[first, width], by_place.get((other, width))
                mine = ours.metrics.get(metric)
                its = theirs.metrics.get(metric) if theirs else None
                if mine and its and mine.median and its.median:
                    by_width[width] = mine.median / its.median
            if by_width:
                yield Ratio(metric, first, other, by_width)
