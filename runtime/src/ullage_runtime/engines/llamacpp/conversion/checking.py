"""Checking: what a GGUF file computes, held against what it was made of."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.pooled import Ability, Output
from ullage_runtime.core.scheduling.port import Decoded, Run
from ullage_runtime.core.scheduling.portions import SCORED_TOKENS
from ullage_runtime.engines.conversion import ConversionError, Precision
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.context import LlamaContext
from ullage_runtime.engines.llamacpp.library import Library
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.pooled_context import PooledContext

TEXTS: Final = (
    "The ullage of a tank is the room that is left above what it holds.",
    'def mean(values: list[float]) -> float:\n    return sum(values) / len(values)  # "none" fails',
    "Im Jahr 2024 kostete das Fass 12,50 €, nicht viel für 200 Liter Öl.",
    "Où est la bibliothèque? Elle ouvre à 9h30 :-)",
    "水位はどのくらいですか。すこし下がりました。",
)
"""What is computed: prose, code, numbers, accents, and another script."""
LONGEST: Final = 256
"""Tokens of the longest text."""

Numbers = Any
"""An array of numpy's: a row of logits for each token, or of numbers for each text."""
Computed = Callable[[Sequence[Sequence[int]]], Numbers]
"""Takes texts as tokens."""


_LEAST_MEAN: Final = {
    Precision.F32: 0.999,
    Precision.F16: 0.999,
    Precision.Q8_0: 0.999,
    Precision.Q6_K: 0.99,
    Precision.Q5_K_M: 0.98,
    Precision.Q5_0: 0.98,
    Precision.Q4_K_M: 0.95,
    Precision.Q4_0: 0.95,
}
"""Mean cosine that is close enough. A CPU rounds activations as it does the weights they meet."""


@dataclass(frozen=True, slots=True)
class LogitComparison:
    """How close two models are on some texts: their logits, or of encoders their vectors."""

    rows: int
    """Tokens whose logits, or texts whose vectors, are compared."""
    least_cosine: float
    mean_cosine: float
    same_likeliest: float | None = None
    """Share of the tokens after which both hold the same one likeliest."""
    perplexity: float | None = None
    source_perplexity: float | None = None

    @property
    def summary(self) -> str:
        """The figures, in words."""
        cosines = f"the least cosine is {self.least_cosine:.6f}, the mean {self.mean_cosine:.6f}"
        if self.same_likeliest is None:
            return f"of {self.rows} texts {cosines}"
        return (
            f"of the logits after {self.rows} tokens {cosines}; the likeliest token is the same "
            f"after {self.same_likeliest:.1%}; perplexity {self.perplexity:.2f}, the source's "
            f"{self.source_perplexity:.2f}"
        )

    def check(self, precision: Precision) -> None:
        """Raise ConversionError unless they are close enough for what weights are written as."""
        limit = _LEAST_MEAN[precision]
        if not self.mean_cosine >= limit:
            raise ConversionError(
                f"the result is not close enough to its source: {self.summary}; for {precision} a "
                f"mean cosine of {limit} is asked"
            )


def compared(texts: Sequence[Sequence[int]], ours: Numbers, theirs: Numbers) -> LogitComparison:
    """Return how close the numbers of two models are."""
    if ours.shape != theirs.shape:
        raise ConversionError(f"the result gives numbers of {ours.shape}, not {theirs.shape}")
    cosines = (_units(ours) * _units(theirs)).sum(axis=1)
    figures = (len(ours), float(cosines.min()), float(cosines.mean()))
    if len(ours) == len(texts):
        return LogitComparison(*figures)
    same = float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
    return LogitComparison(*figures, same, _perplexity(texts, ours), _perplexity(texts, theirs))


class Opened:
    """A GGUF file as the engine computes it, for as long as it is compared."""

    def __init__(self, library: Library, path: str) -> None:
        """Load it; raises LoadError."""
        spec = EngineSpec(path, context_length=None, parallel=1, gpu_layers=0)
        model = Model(library, spec)
        if model.is_encoder:
            model.close()
            model = Model(library, EngineSpec(path, purpose=Ability.EMBED, gpu_layers=0))
        self._model = model

    def tokens(self, texts: Sequence[str] = TEXTS) -> list[list[int]]:
        """Return texts as the file's own vocabulary has them."""
        longest = min(LONGEST, self._model.context_length)
        return [self._model.tokenized(text)[:longest] for text in texts]

    def computed(self, texts: Sequence[Sequence[int]]) -> Numbers:
        """Return the logits after each token, or an encoder's vectors of each text."""
        if self._model.is_encoder:
            return self._vectors(texts)
        context = LlamaContext(self._model)
        try:
            return np.concatenate([self._logits(context, text) for text in texts])
        finally:
            context.close()

    def close(self) -> None:
        """Give everything back; idempotent."""
        self._model.close()

    def _vectors(self, texts: Sequence[Sequence[int]]) -> Numbers:
        context = PooledContext(self._model, self._model.dimensions)
        try:
            said = [context.compute([text], (Output.DENSE,))[0] for text in texts]
        finally:
            context.close()
        return np.stack([np.frombuffer(each.values, dtype=np.float32) for each in said])

    def _logits(self, context: LlamaContext, text: Sequence[int]) -> Numbers:
        context.clear()
        rows = []
        for start in range(0, len(text), SCORED_TOKENS):
            part = text[start : start + SCORED_TOKENS]
            run = Run(0, start, part, wants_logits=True, wants_all=True)
            if context.decode([run]) is not Decoded.DONE:
                raise ConversionError("llama.cpp could not compute a text to compare with")
            rows += [self._row(place) for place in range(len(part))]
        return np.stack(rows)

    def _row(self, place: int) -> Numbers:
        found = llama_cpp.llama_get_logits_ith(self._model.context, place)
        size = self._model.vocabulary_size * ctypes.sizeof(ctypes.c_float)
        return np.frombuffer(ctypes.string_at(found, size), dtype=np.float32)


def _units(rows: Numbers) -> Numbers:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _perplexity(texts: Sequence[Sequence[int]], logits: Numbers) -> float:
    """Return how unlikely a model finds the texts, by their tokens but the first."""
    losses, at = [], 0
    for text in texts:
        rows = logits[at : at + len(text) - 1].astype(np.float64)
        at += len(text)
        rows -= rows.max(axis=1, keepdims=True)
        chosen = rows[np.arange(len(rows)), list(text[1:])]
        losses.append(np.log(np.exp(rows).sum(axis=1)) - chosen)
    return float(np.exp(np.concatenate(losses).mean()))
