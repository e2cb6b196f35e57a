"""A generation as the scheduler sees it: its tokens, what of them is computed, and its claims."""

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    """It ran, and gave its cells to others; it goes on where it was."""
    OVER = "over"


AGE_SECONDS = 30.0
"""Time in which a sequence gains one step of priority, so that none waits for ever."""


def aged(priority: int, seconds: float) -> int:
    """Return a priority with what so many seconds of waiting add."""
    return priority + int(max(0.0, seconds) / AGE_SECONDS)


@dataclass(slots=True, eq=False)
class Sequence:
    """A generation's tokens and claims.

    Computed are the tokens whose keys and values are in its slot; the rest is pending. A sequence
    that generates has one pending token: the one sampled last.
    """

    id: str
    tokens: list[int]
    """The prompt, then what was generated."""
    limit: int
    """Tokens at which it ends at the latest, its prompt included."""
    tenant: str = ""
    adapter: str = ""
    """What is applied to the weights while it is computed; a step computes one adapter's."""
    priority: int = 0
    """Higher goes first."""
    arrival: float = 0.0
    deadline: float | None = None
    number: int = 0
    """Order of submission, for ties."""
    since: int = 0
    """The step with which it began to run, then the one that gave its first token."""
    phase: Phase = Phase.WAITING
    slot: int = -1
    computed: int = 0
    cached: int = 0
    """Tokens of the prompt that were computed before, for somebody else."""
    saved: bytes | None = None
    """Its slot's content while it is preempted; None: it is computed anew."""
    saved_length: int = 0
    scores_prompt: bool = False
    """Whether the logits after each token of its prompt are needed, so that none may be cached."""
    passed: int = 0
    """How often a later one was admitted before it."""
    preemptions: int = 0
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def salt(self) -> tuple[str, str]:
        """Whose cached beginnings it may share: its tenant's, computed with its adapter."""
        return self.tenant, self.adapter

    @property
    def pending(self) -> int:
        """Tokens that are known and not computed."""
        return len(self.tokens) - self.computed

    @property
    def is_scoring(self) -> bool:
        """Whether what it computes next are tokens of a prompt whose logits are all needed."""
        return self.scores_prompt and self.computed < self.prompt_length

    @property
    def is_decoding(self) -> bool:
        """Whether its next step is a single token."""
        return self.pending == 1

    @property
    def generated(self) -> int:
        """Tokens beyond its prompt."""
        return len(self.tokens) - self.prompt_length

    def effective_priority(self, now: float) -> int:
        """Return its priority with what its age adds."""
        return aged(self.priority, now - self.arrival)

    def rank(self, now: float) -> tuple[int, float, int]:
        """Return what running sequences are ordered by: the first keeps its cells longest."""
        return -self.effective_priority(now), self.arrival, self.number
