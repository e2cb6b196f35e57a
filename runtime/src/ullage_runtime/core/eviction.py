"""Eviction: which idle models leave so that another fits."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

GRACE_SECONDS: Final = 5.0
"""Shortest that a model stays after its load and after each use: anything less only thrashes."""

_START_SECONDS: Final = 0.01
"""What a load costs besides, so that nothing is worth infinitely much."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A loaded model as somebody sees it who needs its memory."""

    name: str
    bytes: int
    """What it takes of each of its devices."""
    priority: int = 0
    """Higher ones leave later, and only for models that are as high."""
    idle_seconds: float | None = None
    """Since its last use or its load; None while requests run or wait."""
    reload_seconds: float = 1.0
    """What its return would cost."""
    pinned: bool = False
    returns: bool = False
    """Whether it comes back by itself once there is room."""
    devices: tuple[str, ...] = ()
    """Where its bytes are."""

    def may_leave_for(self, priority: int) -> bool:
        """Whether it may ever leave for a model of that priority."""
        return not self.pinned and self.priority <= priority

    @property
    def is_idle(self) -> bool:
        """Whether it may leave now."""
        return self.idle_seconds is not None and self.idle_seconds >= GRACE_SECONDS


def victims(
    candidates: Iterable[Candidate], needed: int, priority: int
) -> tuple[Candidate, ...] | None:
    """Return who leaves so that `needed` bytes come free, or None when that is not enough.

    The lowest priority goes first; among equals whoever has been idle for long, frees much and is
    soon back. Of those, nobody leaves who is not needed: with any one less it would not suffice.
    """
    willing = [c for c in candidates if c.may_leave_for(priority) and c.bytes > 0]
    chosen: list[Candidate] = []
    freed = 0
    for candidate in _in_order(willing):
        if freed >= needed:
            break
        chosen.append(candidate)
        freed += candidate.bytes
    if freed < needed:
        return None
    for candidate in tuple(reversed(chosen)):
        if freed - candidate.bytes >= needed:
            chosen.remove(candidate)
            freed -= candidate.bytes
    return tuple(chosen)


def _in_order(willing: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield who leaves first; priorities are put in order only once nobody lower is left."""
    for priority in sorted({c.priority for c in willing}):
        yield from sorted((c for c in willing if c.priority == priority), key=_leaves_later)


def _leaves_later(candidate: Candidate) -> tuple[float, ...]:
    idle = candidate.idle_seconds or 0.0
    worth = idle * candidate.bytes / (candidate.reload_seconds + _START_SECONDS)
    return (-worth, -idle, candidate.bytes)
