"""Memory: a context's slots, what each holds, and which idle ones are kept as cached prefixes."""

from collections.abc import Hashable, Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import Final

from ullage_runtime.core.scheduling.cells import Cells
from ullage_runtime.core.scheduling.port import Context
from ullage_runtime.core.scheduling.prefixes import Match, PrefixTree

MIN_PREFIX: Final = 32
"""Shortest beginning worth sharing."""

MAX_IDLE: Final = 64
"""Cached prefixes: each takes a slot, and its cells lie between those of others."""

IDLE_SHARE: Final = 2
"""Cached prefixes hold one in so many cells at most: attention passes over every cell in use, also
over those that it masks, so a full cache slows everybody down."""

NOTHING: Final = Match(-1, 0)


@dataclass(frozen=True, slots=True)
class Found:
    """What of a prompt is computed already, and what soon will be."""

    now: Match = NOTHING
    """The longest beginning that can be shared at once."""
    soon: int = 0
    """The longest beginning once a running sequence has computed its prompt."""


class Memory:
    """A context's slots and cells, with the account of both.

    A sequence that ends leaves its cells to a slot that only keeps them: nothing is copied, and a
    later prompt that begins alike shares them. Cached prefixes are dropped, longest unused first,
    when anybody needs their cells. The first slots compute and the others keep, since llama.cpp
    sizes buffers by the highest slot that computes.
    """

    def __init__(self, context: Context, running: int) -> None:
        self.context = context
        self.cells = Cells(context.cells)
        self._tree = PrefixTree()
        self._computing = running
        self._free = list(range(running))
        self._free_keeping = list(range(running, context.slots))
        self._busy: set[int] = set()
        self._idle: dict[int, None] = {}
        self._max_idle = min(MAX_IDLE, context.slots - running) if context.shares_prefixes else 0
        self._max_idle_cells = context.cells // IDLE_SHARE

    @property
    def idle(self) -> int:
        """How many cached prefixes there are."""
        return len(self._idle)

    @property
    def available(self) -> int:
        """Cells that running sequences do not hold: free ones, and those of cached prefixes."""
        return self.cells.total - self.cells.held_by(self._busy)

    def is_busy(self, slot: int) -> bool:
        """Whether a running sequence has the slot."""
        return slot in self._busy

    def find(self, salt: Hashable, tokens: Tokens[int]) -> Found:
        """Return what of a prompt is there; at least one token is left to compute."""
        if not self.context.shares_prefixes:
            return Found()
        most, best, soon = len(tokens) - 1, NOTHING, 0
        for match in self._tree.matches(salt, tokens):
            length = min(match.length, most)
            usable = min(length, self.cells.length(match.slot))
            if usable > best.length:
                best = Match(match.slot, usable)
            soon = max(soon, length)
        return Found(best if best.length >= MIN_PREFIX else NOTHING, soon)

    def take(self, salt: Hashable, tokens: Tokens[int], prefix: Match) -> int:
        """Return a slot for a running sequence that begins with a prefix that was found."""
        if prefix.length and not self.is_busy(prefix.slot):
            self._touch(prefix.slot)
        slot = self._free.pop()
        if prefix.length:
            self.context.copy(prefix.slot, slot, prefix.length)
            self.cells.share(prefix.slot, slot, prefix.length)
        self._busy.add(slot)
        self._note(salt, slot, tokens)
        return slot

    def restore(self, salt: Hashable, tokens: Tokens[int], saved: bytes, length: int) -> int | None:
        """Return a slot with saved content, or None when the context does not take it."""
        while self.cells.free < length and self.drop_idle():
            pass
        slot = self._free.pop()
        if not self.context.restore(slot, saved):
            self._free.append(slot)
            return None
        self._busy.add(slot)
        self.cells.grow(slot, length)
        self._note(salt, slot, tokens)
        return slot

    def release(self, slot: int) -> None:
        """Empty a slot and give it back."""
        self.context.remove(slot)
        self.cells.release(slot)
        self._tree.remove(slot)
        self._busy.discard(slot)
        self._idle.pop(slot, None)
        (self._free if slot < self._computing else self._free_keeping).append(slot)

    def keep(self, salt: Hashable, slot: int, tokens: Tokens[int]) -> None:
        """Keep a running sequence's cells as a cached prefix, or as many of them as may be kept."""
        tokens = tokens[: self._max_idle_cells]
        if len(tokens) < MIN_PREFIX or not self._max_idle:
            self.release(slot)
            return
        covered = [m for m in self._tree.matches(salt, tokens) if m.slot in self._idle]
        whole = next((m for m in covered if m.length == len(tokens)), None)
        if whole is not None:
            self._touch(whole.slot)
            self.release(slot)
            return
        for match in covered:
            if match.length == len(self._tree.tokens(match.slot)):
                self.release(match.slot)  # the new one begins with all of it
        if not self._free_keeping:
            _ = self.drop_idle()
        kept = self._free_keeping.pop()
        self.context.copy(slot, kept, len(tokens))
        self.cells.share(slot, kept, len(tokens))
        self.release(slot)
        self._idle[kept] = None
        self._tree.insert(salt, kept, tokens)
        self._trim()

    def cached(self) -> Iterator[tuple[Hashable, tuple[int, ...], int]]:
        """Yield cached prefixes, latest used first: who may share each, its tokens, its slot."""
        for slot in reversed(self._idle):
            yield self._tree.salt(slot), self._tree.tokens(slot), slot

    def save(self, slot: int) -> bytes | None:
        """Return a cached prefix for `take_back`, or None when it cannot be had."""
        if not self._free:
            return None
        lent = self._free[-1]  # llama.cpp saves no slot that only keeps
        self.context.copy(slot, lent, self.cells.length(slot))
        saved = self.context.save(lent)
        self.context.remove(lent)
        return saved

    def take_back(self, salt: Hashable, tokens: Tokens[int], saved: bytes) -> bool:
        """Make a cached prefix of saved content; False when there is no room for it."""
        if self.cells.free < len(tokens) or not self._free:
            return False
        slot = self.restore(salt, tokens, saved, len(tokens))
        if slot is None:
            return False
        self.keep(salt, slot, tokens)
        return True

    def drop_idle(self) -> bool:
        """Drop the cached prefix that was unused for longest; False when there is none."""
        if not self._idle:
            return False
        self.release(next(iter(self._idle)))
        return True

    def clear(self) -> None:
        """Empty everything; no sequence runs any more."""
        self.context.clear()
        self.cells.clear()
        self._tree.clear()
        self._busy.clear()
        self._idle.clear()
        self._free = list(range(self._computing))
        self._free_keeping = list(range(self._computing, self.context.slots))

    def _trim(self) -> None:
        """Drop cached prefixes beyond the limits of their number and their cells."""
        while len(self._idle) > self._max_idle or (
            self._idle and self.cells.used - self.cells.held_by(self._busy) > self._max_idle_cells
        ):
            _ = self.drop_idle()

    def _note(self, salt: Hashable, slot: int, tokens: Tokens[int]) -> None:
        if self.context.shares_prefixes and len(tokens) >= MIN_PREFIX:
            self._tree.insert(salt, slot, tokens)

    def _touch(self, slot: int) -> None:
        del self._idle[slot]
        self._idle[slot] = None
