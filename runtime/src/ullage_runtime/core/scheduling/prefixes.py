"""A radix tree over tokens: which slots begin like a prompt, and how far."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Node:
    """An edge's tokens, and every slot whose tokens lead through all of them."""

    tokens: tuple[int, ...] = ()
    slots: set[int] = field(default_factory=set)
    children: dict[int, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """A slot that begins with the first `length` tokens of a prompt."""

    slot: int
    length: int


class PrefixTree:
    """Tokens of slots, by salt: who may share them.

    A tenant never learns, by time, what another one sent, and what was computed with one adapter
    means nothing to another.
    """

    def __init__(self) -> None:
        self._roots: dict[Hashable, _Node] = {}
        self._entries: dict[int, tuple[Hashable, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def insert(self, salt: Hashable, slot: int, tokens: Sequence[int]) -> None:
        """Note what a slot holds, in place of what was noted of it before."""
        self.remove(slot)
        kept = tuple(tokens)
        self._entries[slot] = (salt, kept)
        node, at = self._roots.setdefault(salt, _Node()), 0
        while at < len(kept):
            child = node.children.get(kept[at])
            if child is None:
                node.children[kept[at]] = _Node(kept[at:], {slot})
                return
            common = common_length(child.tokens, kept, at)
            if common < len(child.tokens):
                child = _split(node, child, common)
            child.slots.add(slot)
            node, at = child, at + common

    def remove(self, slot: int) -> None:
        """Forget a slot; nodes that nobody needs any more go with it."""
        entry = self._entries.pop(slot, None)
        if entry is None:
            return
        salt, tokens = entry
        root = node = self._roots[salt]
        at = 0
        while at < len(tokens):
            child = node.children[tokens[at]]
            child.slots.discard(slot)
            if not child.slots:
                del node.children[tokens[at]]
                break
            node, at = child, at + len(child.tokens)
        if not root.children:
            del self._roots[salt]

    def matches(self, salt: Hashable, tokens: Sequence[int]) -> Iterator[Match]:
        """Yield slots with the length of their common beginning, shorter ones first."""
        node, at = self._roots.get(salt), 0
        while node is not None and at < len(tokens):
            node = node.children.get(tokens[at])
            if node is None:
                return
            common = common_length(node.tokens, tokens, at)
            at += common
            for slot in node.slots:
                yield Match(slot, at)
            if common < len(node.tokens):
                return

    def tokens(self, slot: int) -> tuple[int, ...]:
        """Return what was noted of a slot."""
        return self._entries[slot][1]

    def salt(self, slot: int) -> Hashable:
        """Return who may share what was noted of a slot."""
        return self._entries[slot][0]

    def clear(self) -> None:
        """Forget everything."""
        self._roots.clear()
        self._entries.clear()


def common_length(edge: Sequence[int], tokens: Sequence[int], at: int) -> int:
    """Return how many of an edge's tokens are those of a prompt from a place on."""
    limit = min(len(edge), len(tokens) - at)
    if tuple(edge[:limit]) == tuple(tokens[at : at + limit]):
        return limit
    for index in range(limit):
        if edge[index] != tokens[at + index]:
            return index
    return limit


def _split(parent: _Node, child: _Node, length: int) -> _Node:
    """Cut an edge in two and return the first half."""
    first = _Node(child.tokens[:length], set(child.slots), {child.tokens[length]: child})
    parent.children[child.tokens[0]] = first
    child.tokens = child.tokens[length:]
    return first
