"""What a step of the scheduler did, and what all of them have done so far."""

from bisect import bisect_left
from dataclasses import dataclass, field

from ullage_runtime.core.domain import WIDTHS
from ullage_runtime.core.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Ready:
    """A sequence whose next token can be sampled from a row of the last decode call."""

    sequence: Sequence
    row: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens of a prompt after each of which the last decode call left a row of logits."""

    sequence: Sequence
    position: int
    """Where in the prompt they begin."""
    count: int
    row: int
    """The row of the first."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did."""

    ready: tuple[Ready, ...] = ()
    expired: tuple[Sequence, ...] = ()
    """Whose deadline has passed; they are over."""
    failed: tuple[Sequence, ...] = ()
    """Whom a decode call that broke took with it; they are over."""
    prefilled: int = 0
    decoded: int = 0
    scored: tuple[Scored, ...] = ()


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    steps: int = 0
    preemptions: int = 0
    prefix_tokens: int = 0
    """Prompt tokens that did not have to be computed."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    width: int = 0
    """Sequences in the last step."""
    widest: int = 0
    by_width: list[int] = field(default_factory=lambda: [0] * (len(WIDTHS) + 1))
    """Steps as wide as each of `WIDTHS` and no narrower one, then wider ones."""
    widths: int = 0
    """Sum of the widths of all steps."""

    def count(self, width: int) -> None:
        """Count a step."""
        self.steps += 1
        self.width = width
        self.widest = max(self.widest, width)
        self.by_width[bisect_left(WIDTHS, width)] += 1
        self.widths += width
