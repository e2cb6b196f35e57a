"""Verdicts: what was measured on a GPU, held against what is promised; plain data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

SHARE: Final = 0.03
"""By how much the ledger may differ from what the driver says, for large models."""
SLACK: Final = 16 << 20
"""By how many bytes, at least: the driver hands out pages of 2 MiB."""
PROMOTION: Final = 10.0
"""How many times faster than a cold load a model must be back from the warm tier."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the list."""

    name: str
    holds: bool | None
    """None when it could not be measured."""
    found: str
    promised: str

    def to_wire(self) -> dict[str, Any]:
        """Return it for the results."""
        return {
            "name": self.name,
            "holds": self.holds,
            "found": self.found,
            "promised": self.promised,
        }


@dataclass(frozen=True, slots=True)
class Board:
    """A GPU, as somebody describes it."""

    name: str
    total: int


def devices(ours: Sequence[Board], drivers: Sequence[Board]) -> Verdict:
    """Hold the devices that we see against those that the driver's own tool lists."""
    same = len(ours) == len(drivers) and all(
        mine.name == theirs.name and abs(mine.total - theirs.total) <= 1 << 20
        for mine, theirs in zip(ours, drivers, strict=True)
    )
    return Verdict("devices", same, _boards(ours), f"as nvidia-smi says: {_boards(drivers)}")


def ledger(name: str, before: int, after: int, ledger_bytes: int) -> Verdict:
    """Hold what the ledger says against what the driver has handed out meanwhile."""
    taken = after - before
    limit = max(SLACK, SHARE * taken)
    found = f"ledger {_mib(ledger_bytes)}, driver {_mib(taken)}"
    holds = abs(ledger_bytes - taken) <= limit
    return Verdict(name, holds, found, f"equal within {_mib(limit)}")


def returned(name: str, before: int, after: int) -> Verdict:
    """Tell whether all memory is back."""
    found = f"{_mib(after - before)} more in use than before"
    return Verdict(name, abs(after - before) <= SLACK, found, f"at most {_mib(SLACK)}")


def swap(asked: int, failed: int) -> Verdict:
    """Tell whether requests that came during a swap were answered."""
    return Verdict("swap under requests", failed == 0, f"{failed} of {asked} failed", "none fails")


def promotion(cold: float, warm: float | None) -> Verdict:
    """Hold a load from the warm tier against one with caches dropped."""
    promised = f"at least {PROMOTION:.0f} times faster than a cold load"
    if warm is None:
        return Verdict("promotion", None, "the model was not kept warm when it left", promised)
    ratio = cold / max(warm, 1e-9)
    found = f"cold {cold:.2f} s, warm {warm:.2f} s: {ratio:.1f} times"
    return Verdict("promotion", ratio >= PROMOTION, found, promised)


def throttling(told: Sequence[str], known: Sequence[str]) -> Verdict:
    """Tell whether reasons for low clocks were read, and are of those we know."""
    found = ", ".join(told) or "none at the moment"
    return Verdict("throttling", set(told) <= set(known), found, f"of {', '.join(known)}")


def markdown(head: dict[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a page."""
    words = {True: "holds", False: "**fails**", None: "not measured"}
    lines = [
        f"# On {head['gpu']}",
        "",
        "| what | | found | promised |",
        "|---|---|---|---|",
        *(f"| {v.name} | {words[v.holds]} | {v.found} | {v.promised} |" for v in verdicts),
    ]
    return "\n".join(lines) + "\n"


def _boards(boards: Sequence[Board]) -> str:
    return "; ".join(f"{board.name}, {_mib(board.total)}" for board in boards) or "none"


def _mib(count: float) -> str:
    return f"{count / (1 << 20):.1f} MiB"
