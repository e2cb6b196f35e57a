"""The waiting line: bounded, by priority and age, fair between tenants, with a way past giants."""

from collections.abc import Iterator
from typing import Final

from ullage_runtime.core.errors import Overloaded
from ullage_runtime.core.scheduling.fairness import Service
from ullage_runtime.core.scheduling.sequence import Sequence

MAX_PASSED: Final = 16
"""How many later sequences may pass one that does not fit yet; then the line waits for it."""


class WaitingLine:
    """Sequences that have not begun."""

    def __init__(self, limit: int, service: Service) -> None:
        self._limit = limit
        self._service = service
        self._sequences: dict[str, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences.values())

    def add(self, sequence: Sequence) -> None:
        """Take a sequence; raises Overloaded when the line is full."""
        if len(self._sequences) >= self._limit:
            raise Overloaded(
                f"{len(self._sequences)} generations already wait in the engine", retry_after=1
            )
        self._sequences[sequence.id] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out."""
        del self._sequences[sequence.id]

    def ordered(self, now: float) -> list[Sequence]:
        """Return those who wait: by priority with age, then the tenant served least, then age."""
        return sorted(
            self._sequences.values(),
            key=lambda s: (
                -s.effective_priority(now),
                self._service.of(s.tenant),
                s.arrival,
                s.number,
            ),
        )
