"""What of a pod's report changed when: one sequence for everybody who waits for changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

REMEMBERED: Final = 1000
"""How many parts that are gone are remembered."""


@dataclass(slots=True)
class Changes:
    """The parts of a report by name, and the sequence at which each was last another than before.

    Memory is bounded by the parts there are: it is no log. Of parts that are gone the latest
    `REMEMBERED` are known.
    """

    sequence: int = 1
    """Rises by one with each change, however many parts it touches."""
    _told: dict[str, object] = field(default_factory=dict)
    _changed_at: dict[str, int] = field(default_factory=dict)
    _gone_at: dict[str, int] = field(default_factory=dict)
    _forgotten: int = 0
    """The sequence up to which what has gone may have been forgotten."""

    def note(self, parts: Mapping[str, object]) -> bool:
        """Take note of what is so now; return whether any of it is new."""
        changed = [name for name, part in parts.items() if self._differs(name, part)]
        gone = [name for name in self._told if name not in parts]
        if not changed and not gone:
            return False
        self.sequence += 1
        for name in changed:
            self._changed_at[name] = self.sequence
            self._gone_at.pop(name, None)
        for name in gone:
            del self._changed_at[name]
            self._gone_at[name] = self.sequence
        while len(self._gone_at) > REMEMBERED:
            self._forgotten = self._gone_at.pop(next(iter(self._gone_at)))
        self._told = dict(parts)
        return True

    def since(self, sequence: int) -> frozenset[str] | None:
        """Return the names of the parts that changed or went after a sequence.

        None when nobody can tell: it is ahead of ours, or too long ago.
        """
        if not self._forgotten <= sequence <= self.sequence:
            return None
        both = (*self._changed_at.items(), *self._gone_at.items())
        return frozenset(name for name, at in both if at > sequence)

    def _differs(self, name: str, part: object) -> bool:
        return name not in self._told or self._told[name] != part
