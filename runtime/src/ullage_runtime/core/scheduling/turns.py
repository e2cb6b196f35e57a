"""Turns: which adapter's sequences compute next, when several are wanted at once.

An adapter is applied to a whole decode call, so a step computes the sequences of one adapter, those
without any being a group like the others. Going over to another one takes time of its own, so a
group stays for a while. Then the one that had the least time goes on; wide groups are charged less,
since a step of many costs little more than a step of one.
"""

from collections.abc import Mapping
from typing import Final

from ullage_runtime.core.scheduling.fairness import Service

TURN_SECONDS: Final = 0.03
"""How long a group goes on while others wait: long beside a change of adapters, which makes
llama.cpp plan its graphs anew, and short to a reader."""

MOST_WEIGHT: Final = 4
"""A wide group gets so many times the turns of a single sequence at most."""

_MICROSECONDS: Final = 1_000_000


class Turns:
    """Whose turn it is, by adapter."""

    def __init__(self) -> None:
        self._service = Service()
        self._wanted: frozenset[str] = frozenset()
        self._current = ""
        self._weight = 1
        self._spent = 0.0

    def choose(self, widths: Mapping[str, int]) -> str:
        """Return whose turn it is; `widths` has each group's sequences, best-ranked group first."""
        if self._wanted != widths.keys():
            for group in widths.keys() - self._wanted:
                self._service.arrive(group, self._wanted & widths.keys())
            self._wanted = frozenset(widths)
        if self._current not in widths or (len(widths) > 1 and self._spent >= TURN_SECONDS):
            self._current = min(widths, key=self._service.of)
            self._spent = 0.0
        self._weight = min(widths[self._current], MOST_WEIGHT)
        return self._current

    def charge(self, seconds: float) -> None:
        """Take note of how long the group's step took."""
        self._spent += seconds
        self._service.count(self._current, int(seconds * _MICROSECONDS) // self._weight)
