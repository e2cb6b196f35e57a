"""What the generations of one request took, counted as OpenAI counts: a prompt once."""

from dataclasses import dataclass, field
from itertools import groupby

from ullage_runtime.core.domain import Chunk, Usage


@dataclass(slots=True)
class _Taken:
    usage: Usage = field(default_factory=Usage)
    steps: int = 0


class Tally:
    """The tokens of a request's generations, as far as they have told.

    Each prompt has `choices` generations, which stand next to each other. All but the first of them
    find it computed, so its cached tokens are those that the least fortunate one found.
    """

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices
        self._taken: dict[int, _Taken] = {}

    def note(self, index: int, chunk: Chunk) -> None:
        """Take note of a generation's chunk."""
        taken = self._taken.setdefault(index, _Taken())
        taken.steps += bool(chunk.text or chunk.reasoning or chunk.calls)
        taken.usage = chunk.usage or taken.usage

    def of(self, index: int) -> Usage:
        """Return what one generation said it took."""
        return self._taken[index].usage

    @property
    def usage(self) -> Usage:
        """What the engine said they took."""
        total = Usage()
        for _, group in groupby(sorted(self._taken), key=lambda index: index // self._choices):
            usages = [self._taken[index].usage for index in group]
            total = Usage(
                prompt_tokens=total.prompt_tokens + max(u.prompt_tokens for u in usages),
                completion_tokens=total.completion_tokens
                + sum(u.completion_tokens for u in usages),
                cached_tokens=total.cached_tokens + min(u.cached_tokens for u in usages),
                reasoning_tokens=total.reasoning_tokens + sum(u.reasoning_tokens for u in usages),
            )
        return total

    @property
    def spent(self) -> int:
        """All tokens, with those of generations that were broken off and never said."""
        unsaid = (max(0, t.steps - t.usage.completion_tokens) for t in self._taken.values())
        usage = self.usage
        return usage.prompt_tokens + usage.completion_tokens + sum(unsaid)
