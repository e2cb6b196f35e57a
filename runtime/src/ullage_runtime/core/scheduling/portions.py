"""Portions: how a step's tokens of prompts are handed out."""

from dataclasses import dataclass, field
from typing import Final

from ullage_runtime.core.scheduling.sequence import Sequence

SCORED_TOKENS: Final = 8
"""Tokens in a step after each of which the logits are needed.

Each takes a row of logits as large as the vocabulary, and looking at it takes time, for which
everybody who generates waits.
"""


@dataclass(slots=True)
class Portions:
    """What is left to hand out, and who was given how much."""

    left: int
    scored_left: int = SCORED_TOKENS
    given: dict[str, int] = field(default_factory=dict)

    def give(self, sequence: Sequence, most: int) -> None:
        """Give a sequence so many tokens more, as far as it needs them and they last."""
        before = self.given.get(sequence.id, 0)
        count = min(most, sequence.pending - before, self.left)
        if sequence.is_scoring:
            count = min(count, self.scored_left)
            self.scored_left -= count
        self.left -= count
        self.given[sequence.id] = before + count
