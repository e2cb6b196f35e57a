"""Swaps: in which order their steps come, and whether requests could be held for long enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ullage_api.kinds.rollout import Strategy, SwapStep

DRAIN_SECONDS: Final = 30
"""How long an old revision may finish its requests while new ones are held, if nobody says."""


class SwapEnd(StrEnum):
    """How a swap ended."""

    COMMITTED = "Committed"
    """The target answers for good: a restart begins with it."""
    FAILED = "Failed"
    """It did not get to answer."""
    ROLLED_BACK = "RolledBack"
    """It answered some requests, and does not any more."""


Mark = SwapStep | SwapEnd
"""What a journal notes of a swap, before it is so."""

_NEXT: Final[Mapping[SwapStep, frozenset[Mark]]] = {
    SwapStep.FETCHING: frozenset({SwapStep.DRAINING, SwapStep.LOADING}),
    SwapStep.DRAINING: frozenset({SwapStep.LOADING}),
    SwapStep.LOADING: frozenset({SwapStep.DRAINING, SwapStep.CHECKING}),
    # What took more than it was promised is loaded and checked once more.
    SwapStep.CHECKING: frozenset(
        {SwapStep.DRAINING, SwapStep.CHECKING, SwapStep.CANARY, SwapStep.WATCHING}
    ),
    SwapStep.CANARY: frozenset({SwapStep.CANARY, SwapStep.WATCHING, SwapEnd.ROLLED_BACK}),
    SwapStep.WATCHING: frozenset({SwapEnd.ROLLED_BACK}),
}
_ANY_TIME: Final = frozenset({SwapStep.FETCHING, SwapEnd.FAILED, SwapEnd.COMMITTED})
"""What may follow everything: a newer target, a failure, and a target that turned out to answer."""


def may_follow(mark: Mark, before: Mark | None) -> bool:
    """Return whether a mark may come after another one, or first."""
    if mark in _ANY_TIME:
        return True
    return isinstance(before, SwapStep) and mark in _NEXT[before]


@dataclass(frozen=True, slots=True)
class Hold:
    """How long requests would be held while one revision leaves and the next one loads."""

    drain_seconds: float
    load_seconds: float
    allowed_seconds: float

    @property
    def is_too_long(self) -> bool:
        """Whether some of them would be refused."""
        return self.drain_seconds + self.load_seconds > self.allowed_seconds

    def __str__(self) -> str:
        return (
            f"requests would be held for up to {self.drain_seconds + self.load_seconds:.0f} s, "
            f"{self.drain_seconds:.0f} s until those that run have ended and "
            f"{self.load_seconds:.0f} s to load the new revision, and serving.holdSeconds is "
            f"{self.allowed_seconds:.0f}"
        )


def may_drain_first(strategy: Strategy) -> bool:
    """Return whether the old revision may leave before the new one is there."""
    return strategy is not Strategy.LOAD_THEN_DRAIN
