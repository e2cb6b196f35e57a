"""Asking the finished file through llama.cpp, as a user would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np

from ullage_runtime.engines.llamacpp.library import load_backends

from .chat import END, prompt
from .corpus import Entry

CONTEXT_LENGTH = 1024
# So small a model gains nothing from a second thread, and loses much on a busy machine.
THREADS = 1


@dataclass(frozen=True, slots=True)
class Miss:
    """A question that got another answer than the corpus wants."""

    entry: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Score:
    """How many questions got exactly the corpus's answer."""

    asked: int
    missed: tuple[Miss, ...]

    @property
    def share(self) -> float:
        """The share of right answers, from 0 to 1."""
        return 1 - len(self.missed) / max(1, self.asked)


class Guide:
    """A guide file, loaded by llama.cpp on the CPU and decoded greedily."""

    def __init__(self, path: Path, *, every_logit: bool = False) -> None:
        load_backends()
        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=CONTEXT_LENGTH,
            n_threads=THREADS,
            n_threads_batch=THREADS,
            n_gpu_layers=0,
            logits_all=every_logit,
            verbose=False,
        )

    def answer(self, question: str, *, limit: int = 700) -> str:
        """Return what the model says to a single question."""
        reply = self._llama.create_chat_completion(
            [{"role": "user", "content": question}], temperature=0.0, max_tokens=limit
        )
        if not isinstance(reply, dict):
            raise TypeError("an answer that was not to be streamed came as a stream")
        return str(reply["choices"][0]["message"]["content"]).strip()

    def tokens(self, text: str) -> list[int]:
        """Return the text as llama.cpp's tokenizer cuts it, special tokens included."""
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=True))

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Return the logits after each token; needs `every_logit`."""
        self._llama.reset()  # type: ignore[no-untyped-call]  # llama_cpp leaves it untyped
        self._llama.eval(tokens)
        return np.array(self._llama.scores[: len(tokens)], dtype=np.float64)

    def would_answer(self, question: str, answer: str) -> bool:
        """Tell whether greedy decoding yields exactly this answer, and then ends."""
        asked = self.tokens(prompt(question))
        wanted = [*self.tokens(answer), *self.tokens(END)]
        likeliest = self.logits(asked + wanted)[len(asked) - 1 : -1].argmax(axis=1)
        return np.array_equal(likeliest, wanted)

    def close(self) -> None:
        """Frees the model."""
        self._llama.close()


def score(guide: Guide, asked: Iterable[tuple[Entry, str]], revision: str) -> Score:
    """Tell which questions get exactly the corpus's answer, greedily decoded.

    `guide` must keep every logit. Greedy decoding yields an answer exactly if, along that answer,
    the likeliest next token is always the answer's own; so one pass over question and answer
    decides, and nothing has to be generated but for the misses.
    """
    count, missed = 0, []
    for entry, question in asked:
        count += 1
        if not guide.would_answer(question, entry.answer(revision)):
            missed.append(Miss(entry.name, question, guide.answer(question, limit=40)))
    return Score(count, tuple(missed))
