"""Two collections held against each other, point by point: a merge of what both have, in order.

Counts that agree say nothing: a lost update has the same count, and a deleted point that came back
makes up for one that is missing. Here every id of either side is looked at with the version of the
mutation that wrote it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

PointId = int | str
Versioned = tuple[PointId, int]
"""A point's id and the version of the mutation that wrote it."""


class Side(StrEnum):
    """One of the two collections."""

    SOURCE = "source"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Difference:
    """A point that is not the same on both sides; None: it is not there."""

    id: PointId
    source: int | None
    target: int | None

    def __str__(self) -> str:
        if self.target is None:
            return f"point {self.id} is missing, version {self.source} in the source"
        if self.source is None:
            origin = "a foreign writer's" if self.target == 0 else f"version {self.target}"
            return f"point {self.id} is there and is not in the source ({origin})"
        return f"point {self.id} has version {self.target}, {self.source} in the source"


def order(point: PointId) -> tuple[int, int]:
    """Return what stores sort ids by: numbers first, then UUIDs."""
    return (0, point) if isinstance(point, int) else (1, UUID(point).int)


@dataclass(slots=True)
class Join:
    """A merge of two ordered streams that come in pages.

    While `wants` names a side, `add` its next page. What differs gathers in `differences`.
    """

    differences: list[Difference] = field(default_factory=list)
    compared: int = 0
    """Points that are on both sides."""
    _pages: dict[Side, deque[Versioned]] = field(
        default_factory=lambda: {side: deque() for side in Side}
    )
    _ended: set[Side] = field(default_factory=set)

    @property
    def wants(self) -> Side | None:
        """The side whose next page is needed; None once both have ended."""
        for side in Side:
            if not self._pages[side] and side not in self._ended:
                return side
        return None

    def add(self, side: Side, points: Sequence[Versioned], *, is_last: bool) -> None:
        """Take a side's next page."""
        self._pages[side].extend(points)
        if is_last:
            self._ended.add(side)
        self._merge()

    def _merge(self) -> None:
        source, target = self._pages[Side.SOURCE], self._pages[Side.TARGET]
        while source and target:
            left, right = order(source[0][0]), order(target[0][0])
            if left < right:
                self._only_source()
            elif right < left:
                self._only_target()
            else:
                self._both()
        if not source and Side.SOURCE in self._ended:
            while target:
                self._only_target()
        if not target and Side.TARGET in self._ended:
            while source:
                self._only_source()

    def _only_source(self) -> None:
        point, version = self._pages[Side.SOURCE].popleft()
        self.differences.append(Difference(point, version, None))

    def _only_target(self) -> None:
        point, version = self._pages[Side.TARGET].popleft()
        self.differences.append(Difference(point, None, version))

    def _both(self) -> None:
        point, source = self._pages[Side.SOURCE].popleft()
        _, target = self._pages[Side.TARGET].popleft()
        self.compared += 1
        if source != target:
            self.differences.append(Difference(point, source, target))


def is_consistent(before: int | None, between: int | None, after: int | None) -> bool:
    """Return whether a version on one side fits what the other had before and after; None: none.

    A point that is being written to changes between two looks; it agrees if what was seen between
    them may have been so at the time.
    """
    if between in {before, after}:
        return True
    if before is None or between is None or after is None:
        return False
    return before <= between <= after
