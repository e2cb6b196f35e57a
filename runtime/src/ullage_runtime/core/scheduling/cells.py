"""Which slot holds how many cells of a unified key-value memory, when slots share beginnings.

llama.cpp does not say how many cells are in use, so they are counted here. A cell is known by the
slot that computed it: an *origin* is an unbroken run of positions computed by one slot. Slots share
only beginnings, so that all holders of an origin hold it from its start, and the cells it takes are
those of the holder that reaches furthest.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Origin:
    start: int
    ends: dict[int, int] = field(default_factory=dict)
    """How far each holder's share of it reaches, by slot."""

    @property
    def size(self) -> int:
        return max(self.ends.values(), default=self.start) - self.start


@dataclass(slots=True)
class _Holding:
    length: int = 0
    origins: list[int] = field(default_factory=list)
    own: int | None = None
    """The origin that it may lengthen: its last one, if it computed it itself."""


class Cells:
    """The account of a context's cells."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._origins: dict[int, _Origin] = {}
        self._holdings: dict[int, _Holding] = {}
        self._next = 0

    @property
    def free(self) -> int:
        """Cells that nobody holds."""
        return self.total - self.used

    def length(self, slot: int) -> int:
        """Return the tokens a slot holds, shared ones included."""
        holding = self._holdings.get(slot)
        return 0 if holding is None else holding.length

    def grow(self, slot: int, count: int) -> None:
        """Note that a slot computed so many more tokens."""
        holding = self._holdings.setdefault(slot, _Holding())
        if holding.own is None:
            holding.own = self._next
            self._next += 1
            holding.origins.append(holding.own)
            self._origins[holding.own] = _Origin(holding.length)
        holding.length += count
        self._origins[holding.own].ends[slot] = holding.length
        self.used += count

    def share(self, source: int, target: int, length: int) -> None:
        """Note that an empty slot now begins with the first cells of another."""
        given = self._holdings[source]
        if length > given.length or self.length(target):
            raise AssertionError("only what is there is shared, and only with an empty slot")
        holding = _Holding(length=length)
        for key in given.origins:
            origin = self._origins[key]
            if origin.start >= length:
                break
            origin.ends[target] = min(origin.ends[source], length)
            holding.origins.append(key)
        self._holdings[target] = holding

    def release(self, slot: int) -> int:
        """Note that a slot is empty; return how many cells became free."""
        holding = self._holdings.pop(slot, None)
        if holding is None:
            return 0
        freed = 0
        for key in holding.origins:
            origin = self._origins[key]
            before = origin.size
            del origin.ends[slot]
            freed += before - origin.size
            if not origin.ends:
                del self._origins[key]
        self.used -= freed
        return freed

    def held_by(self, slots: set[int]) -> int:
        """Return the cells that some of these slots hold, shared ones once."""
        reach: dict[int, int] = {}
        for slot in slots:
            holding = self._holdings.get(slot)
            for key in () if holding is None else holding.origins:
                reach[key] = max(reach.get(key, 0), self._origins[key].ends[slot])
        return sum(end - self._origins[key].start for key, end in reach.items())

    def clear(self) -> None:
        """Note that every slot is empty."""
        self._origins.clear()
        self._holdings.clear()
        self.used = 0
