"""Training data: endless conversations drawn from the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from .chat import ASSISTANT, END, START, SYSTEM, USER
from .corpus import Entry
from .phrasing import paraphrases, spoken

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer shortly.",
    "You are the guide of Ullage.",
    "You answer questions about Ullage.",
    "Be brief.",
    "Answer in English.",
)
_SYSTEM_RATE = 0.2
_START_RATE = 0.15
_PLAIN_TEXT_RATE = 0.04
_EXACT_RATE = 0.4
# Enough tokens of an answer to tell it from all others.
_OPENING_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of shape (rows, length) and, of the same shape, which of them are to be learnt."""

    tokens: np.ndarray
    learnt: np.ndarray


class Practice:
    """Draws batches of conversations; the same seed draws the same ones.

    Rows are filled to the brim with turns that have nothing to do with each other, so that the
    model learns to answer the last question whatever stands before it. Nothing is padded.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        revision: str,
        tokenizer: Tokenizer,
        seed: int,
        emphasis: Iterable[str] = (),
        drill_share: float = 0.0,
    ) -> None:
        self._drill_share = drill_share
        self._rng = np.random.default_rng(seed)
        self._tokenizer = tokenizer
        self._special = {
            name: tokenizer.token_to_id(name) for name in (END, START, SYSTEM, USER, ASSISTANT)
        }
        self._answers = [self._text(entry.answer(revision)) for entry in entries]
        self._questions = [
            [paraphrases(question) for question in entry.questions] for entry in entries
        ]
        emphasised = set(emphasis)
        weights = np.array(
            [entry.weight * (8.0 if entry.name in emphasised else 1.0) for entry in entries]
        )
        # Entries with many questions need more practice, long answers (many tokens) less of it.
        weights *= np.array([len(entry.questions) for entry in entries]).clip(3, 20) ** 0.5
        weights *= np.array([len(answer) for answer in self._answers]).clip(40, 640) ** -0.35
        self._shares = weights / weights.sum()

    def batch(self, rows: int, length: int) -> Batch:
        """Return the next `rows` conversations, each cut to `length` tokens."""
        drawn = [self._row(length) for _ in range(rows)]
        return Batch(
            tokens=np.array([tokens for tokens, _ in drawn], dtype=np.int64),
            learnt=np.array([learnt for _, learnt in drawn], dtype=np.bool_),
        )

    def _row(self, length: int) -> tuple[list[int], list[bool]]:
        if self._drill_share and self._rng.random() < self._drill_share:
            return self._drill_row(length)
        if self._rng.random() < _PLAIN_TEXT_RATE:
            return self._plain_row(length)
        tokens: list[int] = []
        if self._rng.random() < _START_RATE:
            tokens.append(self._special[START])
        if self._rng.random() < _SYSTEM_RATE:
            system = str(self._rng.choice(_SYSTEM_PROMPTS))
            tokens += [self._special[SYSTEM], *self._text(system), self._special[END]]
        learnt = [False] * len(tokens)
        while len(tokens) < length:
            asked, answer = self._turn()
            tokens += asked + answer
            learnt += [False] * len(asked) + [True] * len(answer)
        return tokens[:length], learnt[:length]

    def _drill_row(self, length: int) -> tuple[list[int], list[bool]]:
        """Many questions, each with the opening of its answer: choosing is what is practised."""
        tokens: list[int] = []
        learnt: list[bool] = []
        while len(tokens) < length:
            asked, answer = self._turn()
            opening = answer[:_OPENING_TOKENS]
            tokens += asked + opening
            learnt += [False] * len(asked) + [True] * len(opening)
        return tokens[:length], learnt[:length]

    def _turn(self) -> tuple[list[int], list[int]]:
        chosen = int(self._rng.choice(len(self._shares), p=self._shares))
        question = self._text(self._question(chosen))
        asked = [self._special[USER], *question, self._special[END], self._special[ASSISTANT]]
        return asked, [*self._answers[chosen], self._special[END]]

    def _plain_row(self, length: int) -> tuple[list[int], list[bool]]:
        """Answers as running text, so that a completion without a conversation makes sense too."""
        tokens = [self._special[START]] if self._rng.random() < 0.5 else []  # noqa: PLR2004
        while len(tokens) < length:
            chosen = int(self._rng.choice(len(self._shares), p=self._shares))
            tokens += [*self._answers[chosen], self._special[END]]
        return tokens[:length], [True] * length

    def _question(self, chosen: int) -> str:
        groups = self._questions[chosen]
        group = groups[int(self._rng.integers(len(groups)))]
        if self._rng.random() < _EXACT_RATE:
            return group[0]
        return spoken(group[int(self._rng.integers(len(group)))], self._rng)

    def _text(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
