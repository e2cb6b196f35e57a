"""Checking: what a converted model computes, held against what it was made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ullage_runtime.core.pooled import Ability, PoolingType
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.onnx.conversion.folders import ConversionError
from ullage_runtime.engines.onnx.files import OnnxFiles
from ullage_runtime.engines.onnx.heads import Head, head_for
from ullage_runtime.engines.onnx.session import Session

TEXTS: Final = 64
LONGEST: Final = 128
"""Tokens of the longest text that is compared."""
_SEED: Final = 20

Numbers = Any
Rows = Callable[[Sequence[Sequence[int]]], Numbers]
"""Takes texts as tokens; returns a row of numbers for each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is close enough."""

    cosine: float
    """At least, between a text's vectors."""
    score: float
    """At most, between a pair's scores as numbers from 0 to 1."""


EXACT: Final = Limits(cosine=0.9999, score=0.0001)
ROUNDED: Final = Limits(cosine=0.99, score=0.05)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How close two models are on texts of random tokens."""

    texts: int
    least_cosine: float | None = None
    mean_cosine: float | None = None
    score_difference: float | None = None
    """The largest, of scores from 0 to 1."""

    def check(self, limits: Limits) -> None:
        """Raise ConversionError unless they are close enough."""
        if self.least_cosine is not None and not self.least_cosine >= limits.cosine:
            raise ConversionError(
                f"the result is not close enough to its source: of {self.texts} texts the least "
                f"cosine is {self.least_cosine:.5f}, and {limits.cosine} is asked"
            )
        if self.score_difference is not None and not self.score_difference <= limits.score:
            raise ConversionError(
                f"the result is not close enough to its source: of {self.texts} pairs a score is "
                f"off by {self.score_difference:.5f}, and {limits.score} is allowed"
            )


def sample_texts(vocabulary: int, longest: int) -> list[list[int]]:
    """Return texts of random tokens, from one token to as many as are compared."""
    random = np.random.default_rng(_SEED)
    lengths = np.linspace(1, max(1, min(longest, LONGEST)), TEXTS).astype(int)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]


def compared(
    texts: Sequence[Sequence[int]], ours: Rows, theirs: Rows, purpose: Ability
) -> Comparison:
    """Return how close two models are."""
    found, wanted = ours(texts), theirs(texts)
    if found.shape != wanted.shape:
        raise ConversionError(f"the result gives numbers of {found.shape}, not {wanted.shape}")
    if purpose is Ability.RERANK:
        difference = np.abs(_chances(found) - _chances(wanted)).max()
        return Comparison(len(texts), score_difference=float(difference))
    cosines = (_units(found) * _units(wanted)).sum(axis=1)
    return Comparison(len(texts), float(cosines.min()), float(cosines.mean()))


@dataclass(frozen=True, slots=True)
class Computed:
    """An ONNX file as the engine computes it."""

    head: Head
    rows: Rows


def computed(files: OnnxFiles, purpose: Ability) -> Computed:
    """Return what an ONNX file computes; raises LoadError when it cannot be loaded.

    It is a score, or the vector as the model's files pool it.
    """
    session = Session(files.model, threads=cpu_quota(), padding=files.padding, second_type=1)
    head = head_for(purpose, files.pooling or PoolingType.AUTO, session.outputs)

    def rows(texts: Sequence[Sequence[int]]) -> Numbers:
        # Each beside the longest, as what it is filled up with must count for nothing.
        longest = max(texts, key=len)
        values = [session.run([text, longest], head)[0] for text in texts]
        return np.stack([np.frombuffer(each, dtype=np.float32) for each in values])

    return Computed(head, rows)


def _units(rows: Numbers) -> Numbers:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chances(scores: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))
