"""How many prompt tokens one step takes, so that nobody waits long for its end."""

from dataclasses import dataclass, field

FAST_SECONDS = 0.1
SLOW_SECONDS = 1.5
"""Bounds of a step in which nobody generates; a cancel waits that long."""

ALONE_SECONDS = 1.0
"""Time that a step may take in which nobody generates, once it is known what a token takes.

A prompt that is computed in two pieces pays for two steps: 196 tokens of a model of 0.4 GB took a
quarter longer so.
"""

DECODE_SHARE = 0.7
"""Time a step's long prompts may take, as a share of a step that only generates.

Twice an idle step is what a reader may notice; what is left is for the estimate's error and for
the last of the tokens, which are few.
"""

READERS = 8
"""Generations that weigh as much as one long prompt that waits for its first token.

With that many or more for each prompt, nobody reads at less than half the speed. With fewer, most
of those who wait for the machine are prompts, and everybody ends later for every token that is
generated for one alone.
"""

QUICK_TOKENS = 512
QUICK_SECONDS = 1.5
"""Bounds of a quick prompt, for which those who generate wait once.

It costs them the same time in all, taken at once or in pieces; but in pieces it ends much later,
and so does whoever comes after it.
"""

ALONE_EVERY = 32
"""Steps with a long prompt after which those who generate have one to themselves.

What they take alone grows with what they have written, and a long prompt takes hundreds of steps.
"""

_WEIGHT = 0.2
_RARE_WEIGHT = 0.6
"""Weights of the newest step in the running means."""


@dataclass(slots=True)
class PrefillPace:
    """A chunk of prompt tokens that follows the machine.

    It is doubled after a fast step and halved after a slow one. That is what quick prompts get, and
    while nobody generates, all that fits into a second. Long prompts beside others that generate
    get about as long as a step of these takes, or longer when there are more of them than one for
    every few.
    """

    maximum: int
    chunk: int = 128
    minimum: int = 16
    decode_seconds: dict[int, float] = field(default_factory=dict)
    """Mean time of a step that only generates, by how many do."""
    token_seconds: float = 0.0
    """Mean time that one more prompt token adds to a step."""
    steps_beside: int = 0
    """Steps with prompts since those who generate had one to themselves."""
    beside_seconds: float = 0.0
    """Mean time that few prompt tokens add, however few they are: all that they see is read."""

    def __post_init__(self) -> None:
        self.chunk = min(self.chunk, self.maximum)

    def allowed(self, decoding: int, prompts: int = 1, quick: int = 0) -> int:
        """Return how many tokens of so many prompts to take beside so many that generate.

        `quick` of their tokens are those of quick prompts.
        """
        if not self.token_seconds:
            return self.chunk
        if not decoding:
            fitting = int(ALONE_SECONDS / self.token_seconds)
            return max(self.chunk, min(fitting, self.maximum))
        alone = self._alone(decoding)
        if not alone:
            return self.chunk
        share = DECODE_SHARE * max(1.0, READERS * prompts / decoding)
        fitting = int((share * alone - self.beside_seconds) / self.token_seconds)
        return max(1, min(max(fitting, quick), self.chunk))

    @property
    def is_due_alone(self) -> bool:
        """Whether those who generate are to have a step to themselves."""
        return self.steps_beside >= ALONE_EVERY

    def is_quick(self, tokens: int) -> bool:
        """Tell whether a prompt of so many tokens may make others wait."""
        return tokens <= QUICK_TOKENS and tokens * self.token_seconds <= QUICK_SECONDS

    def observe(self, prefilled: int, decoded: int, seconds: float) -> None:
        """Take note of how long a step took."""
        if not prefilled:
            # One look for many steps counts for more than each of many.
            weight = _RARE_WEIGHT if self.is_due_alone else _WEIGHT
            self.steps_beside = 0
            self._note_alone(decoded, seconds, weight)
            return
        self.steps_beside += bool(decoded)
        if decoded and decoded not in self.decode_seconds and self.token_seconds:
            # Prompts may come without a break; what they do not explain is the others' step.
            rest = seconds - prefilled * self.token_seconds
            self._note_alone(decoded, max(rest, self._alone(decoded)))
        elif prefilled >= self.minimum or (decoded and not self.token_seconds):
            own = max(0.0, seconds - self._alone(decoded)) / prefilled
            self.token_seconds = _mean(self.token_seconds, own)
            self.beside_seconds *= 1.0 - _WEIGHT
        elif decoded:
            # A small chunk by itself pays the step's own cost, which is not its tokens'.
            rest = seconds - self._alone(decoded) - prefilled * self.token_seconds
            self.beside_seconds += _WEIGHT * (max(0.0, rest) - self.beside_seconds)
        if seconds > SLOW_SECONDS and prefilled <= self.chunk:
            self.chunk = max(self.minimum, self.chunk // 2)
        elif seconds < FAST_SECONDS and prefilled >= self.chunk:
            self.chunk = min(self.maximum, self.chunk * 2)

    def _alone(self, decoding: int) -> float:
        """Return the time of a step of so many that generate, or of the nearest known number."""
        if not decoding or not self.decode_seconds:
            return 0.0
        nearest = min(self.decode_seconds, key=lambda width: abs(width - decoding))
        return self.decode_seconds[nearest]

    def _note_alone(self, decoding: int, seconds: float, weight: float = _WEIGHT) -> None:
        before = self.decode_seconds.get(decoding, 0.0)
        self.decode_seconds[decoding] = _mean(before, seconds, weight)


def _mean(before: float, newest: float, weight: float = _WEIGHT) -> float:
    return newest if not before else before + weight * (newest - before)
