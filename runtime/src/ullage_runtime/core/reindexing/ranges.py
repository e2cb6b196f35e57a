"""The parts in which a collection is copied: ranges of ids that do not change once they are found.

They are found by one walk over the ids that there are when copying begins. What is written later
reaches the target by itself, wherever its id lies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ullage_runtime.core.reindexing.joining import PointId

LEAST_POINTS: Final = 2048
"""Points of a range, at least, if nobody says: fewer are not worth keeping apart."""
MOST_RANGES: Final = 64


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids from one to another, both included; None is the end of all."""

    first: PointId | None
    last: PointId | None


@dataclass(slots=True)
class Divider:
    """Divides ids that come in order into ranges of about equal numbers."""

    total: int
    """About how many ids there are."""
    least: int = LEAST_POINTS
    """Ids of a range, or some times as many."""
    _ranges: list[IdRange] = field(default_factory=list)
    _first: PointId | None = None
    _last: PointId | None = None
    _count: int = 0

    def add(self, ids: Iterable[PointId]) -> None:
        """Take the next ids."""
        size = self.least * max(1, -(-self.total // (self.least * MOST_RANGES)))
        for each in ids:
            if self._count == size and len(self._ranges) < MOST_RANGES - 1:
                self._ranges.append(IdRange(self._first, self._last))
                self._first, self._count = each, 0
            self._last = each
            self._count += 1

    def ranges(self) -> list[IdRange]:
        """Return the ranges of all that was added; the first and the last are open."""
        return [*self._ranges, IdRange(self._first, None)]
