"""What is asked and when: drawn from a seed, so that every server gets the very same load."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_LENGTH: Final = 1_000_000
"""Tokens beyond which a length is a slip of the finger."""
MAX_DEVIATION: Final = 3
"""Beyond it, lengths would differ by factors of thousands."""

_VOCABULARY: Final = """
    a about after all and any are around as at be because before both but by can change come
    could day do each end even every few find first for from get give go good great group hand
    have head help here high how if in into just keep kind know large last learn leave left life
    light line little live long look make many may mean might more most move much must name need
    never new next night no not now number of off old on once one only open or other our out over
    own page part place plant point press read right river run same say school sea second see
    seem set should show side small some sound spell still stop such take tell than that the them
    then there these thing think this those three through time to too tree try turn two under up
    use very want water way well went were what when where which while who why will with word
    work world would write year you young
"""
_WORDS: Final = tuple(_VOCABULARY.split())


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in tokens, at least 1 each."""

    text: str
    """As it was given."""
    draw: Callable[[random.Random], int]


def parsed_lengths(text: str) -> Lengths:
    """Return the distribution a text names; raises ValueError with the forms there are.

    `128` is fixed, `uniform:16:256` lies evenly between two ends, and `lognormal:128:0.6` has a
    median and the deviation of its logarithm, as lengths of real prompts mostly do.
    """
    try:
        match text.split(":"):
            case [length]:
                return _fixed(text, _length(length))
            case ["uniform", low, high]:
                return _uniform(text, _length(low), _length(high))
            case ["lognormal", median, sigma]:
                return _lognormal(text, _length(median), float(sigma))
            case _:
                pass
    except ValueError:
        pass
    raise ValueError(
        f"{text!r} is no length: give 128, uniform:16:256 or lognormal:128:0.6 (median and "
        f"deviation up to {MAX_DEVIATION}), in tokens"
    )


def _length(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_LENGTH:
        raise ValueError
    return value


def _fixed(text: str, length: int) -> Lengths:
    return Lengths(text, lambda _: length)


def _uniform(text: str, low: int, high: int) -> Lengths:
    if low > high:
        raise ValueError
    return Lengths(text, lambda chance: chance.randint(low, high))


def _lognormal(text: str, median: int, sigma: float) -> Lengths:
    if not 0 <= sigma <= MAX_DEVIATION:
        raise ValueError

    def draw(chance: random.Random) -> int:
        return min(MAX_LENGTH, max(1, round(chance.lognormvariate(math.log(median), sigma))))

    return Lengths(text, draw)


class Arrivals(StrEnum):
    """When requests arrive at a given rate."""

    FIXED = "fixed"
    POISSON = "poisson"


def starts(rate: float, arrivals: Arrivals, seed: str) -> Iterator[float]:
    """Yield, without end, the seconds after the beginning at which requests should start."""
    if arrivals is Arrivals.FIXED:
        yield from (index / rate for index in itertools.count())
    chance = _chance(seed, "arrivals")
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        yield now


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its prompt, and the longest answer it wants."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """An endless series of requests, the same for the same seed."""

    seed: str
    prompt_lengths: Lengths
    output_lengths: Lengths
    characters_per_token: float = 4.5
    shared_prefix: int = 0
    """Tokens with which every prompt begins, as a common system prompt does."""
    prompts: Sequence[str] = ()
    """Given prompts, taken in turn instead of made-up ones."""

    def ask(self, index: int) -> Ask:
        """Return the request of a number."""
        chance = _chance(self.seed, str(index))
        if self.prompts:
            prompt = self.prompts[index % len(self.prompts)]
        else:
            prompt = self._made_up(chance, self.prompt_lengths.draw(chance))
        return Ask(prompt, self.output_lengths.draw(chance))

    def _made_up(self, chance: random.Random, tokens: int) -> str:
        shared = round(self.shared_prefix * self.characters_per_token)
        prefix = _words(_chance(self.seed, "prefix"), shared) if shared else ""
        return prefix + _words(chance, max(1, round(tokens * self.characters_per_token)))


def _words(chance: random.Random, characters: int) -> str:
    text = ""
    while len(text) < characters:
        text += " ".join(chance.choices(_WORDS, k=1 + characters // 6)) + " "
    return text[:characters]


def _chance(*seed: str) -> random.Random:
    return random.Random("/".join(seed))  # noqa: S311 - it must be repeatable, not secret
