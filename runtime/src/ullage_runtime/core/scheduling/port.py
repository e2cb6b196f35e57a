"""What the scheduler needs of a model's context: slots of cells that it fills, shares and frees."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Decoded(Enum):
    """How a decode call went."""

    DONE = "done"
    NO_ROOM = "no room"
    """There are too few free cells; nothing was changed."""
    FAILED = "failed"
    """The context may hold anything now and must be cleared."""


@dataclass(frozen=True, slots=True)
class Run:
    """Successive tokens of one slot, computed in one step."""

    slot: int
    position: int
    tokens: Sequence[int]
    wants_logits: bool
    """Whether the logits after its last token are needed."""
    wants_all: bool = False
    """Whether those after each of them are."""
    adapter: str = ""
    """What is applied to the weights; the same for all runs of a call."""


class Context(Protocol):
    """One model's key-value memory and what computes into it."""

    @property
    def cells(self) -> int:
        """Tokens that all slots together can hold; shared ones count once."""
        ...

    @property
    def slots(self) -> int:
        """How many slots it can tell apart; the lowest ones compute."""
        ...

    @property
    def batch(self) -> int:
        """Tokens that one decode call takes."""
        ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether a slot can begin as a copy of the beginning of another."""
        ...

    def decode(self, runs: Sequence[Run]) -> Decoded:
        """Compute runs in one call; all of them, or none."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot begin with the first cells of another, shared and not copied."""
        ...

    def remove(self, slot: int) -> None:
        """Empty a slot; cells that no other slot shares become free."""
        ...

    def saved_size(self, slot: int) -> int:
        """Return the bytes that `save` would return."""
        ...

    def save(self, slot: int) -> bytes | None:
        """Return a slot's content for `restore`, or None when it cannot be had."""
        ...

    def restore(self, slot: int, saved: bytes) -> bool:
        """Fill an empty slot with saved content; False leaves it empty."""
        ...

    def clear(self) -> None:
        """Empty every slot."""
        ...
