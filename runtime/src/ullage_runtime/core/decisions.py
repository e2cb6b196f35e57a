"""What was decided about memory, and why: one record for each model that left or was refused."""

import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KEPT: Final = 1000
"""How many of the latest are kept."""


class Rule(StrEnum):
    """Why a model left memory, or was not let in."""

    DEMAND = "Demand"
    """Another model needed the room."""
    TURN = "Turn"
    """Others waited for it although it was busy: it finished what ran and made room."""
    IDLE = "Idle"
    """Nobody had used it for `residency.unloadSeconds`."""
    LEVEL = "Level"
    """Memory was nearly full, and nobody used it."""
    NEVER_FITS = "NeverFits"
    """It needs more than the whole budget."""
    NO_ROOM = "NoRoom"
    """No room was made for it within its time."""


REFUSALS: Final = frozenset({Rule.NEVER_FITS, Rule.NO_ROOM})


@dataclass(frozen=True, slots=True)
class Decision:
    """One model that left memory, or was not let in."""

    id: int
    time: float
    """Seconds since the epoch."""
    model: str
    rule: Rule
    bytes: int
    """What it gave back, or needs."""
    beneficiary: str | None
    """The model it was for."""
    message: str

    @property
    def is_refusal(self) -> bool:
        """Whether it was not let in, rather than sent away."""
        return self.rule in REFUSALS


class Decisions:
    """The latest decisions, newest first."""

    def __init__(self) -> None:
        self._kept: collections.deque[Decision] = collections.deque(maxlen=KEPT)
        self._ids = itertools.count(1)

    def add(
        self,
        *,
        time: float,
        model: str,
        rule: Rule,
        count: int,
        beneficiary: str | None,
        message: str,
    ) -> Decision:
        """Keep a decision and return it."""
        decision = Decision(next(self._ids), time, model, rule, count, beneficiary, message)
        self._kept.appendleft(decision)
        return decision

    def latest(self) -> Sequence[Decision]:
        """Return all that are kept, newest first."""
        return tuple(self._kept)
