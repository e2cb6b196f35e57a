"""Checking: what a converted model computes, held against what it was made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ullage_runtime.core.pooled import Ability, Output, PoolingType
from ullage_runtime.engines.conversion import ConversionError
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.onnx.files import OnnxFiles
from ullage_runtime.engines.onnx.heads import Head, heads_for, pooled_output
from ullage_runtime.engines.onnx.session import Session

TEXTS: Final = 64
LONGEST: Final = 128
"""Tokens of the longest text that is compared."""
_SEED: Final = 20
_NO_WEIGHT: Final = 1e-6

Numbers = Any
Says = Callable[[Sequence[int]], Mapping[Output, Numbers]]
"""Takes a text's tokens; returns what a model says of it: `Head` tells in which form."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is close enough."""

    cosine: float
    """At least, between a text's vectors, and between those of its tokens."""
    score: float
    """At most, between a pair's scores as numbers from 0 to 1, and between weights of tokens.

    A weight's difference is a share of the largest weight that there is.
    """


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
    weight_difference: float | None = None
    """The largest, of weights of tokens, as a share of the largest weight."""
    least_token_cosine: float | None = None

    @property
    def summary(self) -> str:
        """The figures, in words."""
        close = (
            f"a score is off by at most {self.score_difference:.6f}"
            if self.least_cosine is None
            else f"the least cosine is {self.least_cosine:.6f}, the mean {self.mean_cosine:.6f}"
        )
        if self.weight_difference is not None:
            close += (
                f"; a token's weight is off by at most {self.weight_difference:.6f} of the largest"
            )
        if self.least_token_cosine is not None:
            close += f"; of tokens' vectors the least cosine is {self.least_token_cosine:.6f}"
        return f"of {self.texts} random texts {close}"

    def check(self, limits: Limits) -> None:
        """Raise ConversionError unless they are close enough."""
        at_least = {"cosine": self.least_cosine, "cosine of a token": self.least_token_cosine}
        at_most = {"score": self.score_difference, "weight of a token": self.weight_difference}
        for what, found in at_least.items():
            if found is not None and not found >= limits.cosine:
                raise ConversionError(
                    f"the result is not close enough to its source: of {self.texts} texts the "
                    f"least {what} is {found:.5f}, and {limits.cosine} is asked"
                )
        for what, found in at_most.items():
            if found is not None and not found <= limits.score:
                raise ConversionError(
                    f"the result is not close enough to its source: of {self.texts} texts a "
                    f"{what} is off by {found:.5f}, and {limits.score} is allowed"
                )


def sample_texts(vocabulary: int, longest: int) -> list[list[int]]:
    """Return texts of random tokens, from one token to as many as are compared."""
    random = np.random.default_rng(_SEED)
    lengths = np.linspace(1, max(1, min(longest, LONGEST)), TEXTS).astype(int)
    return [random.integers(0, vocabulary, length).tolist() for length in lengths]


def compared(
    texts: Sequence[Sequence[int]], ours: Says, theirs: Says, purpose: Ability
) -> Comparison:
    """Return how close two models are."""
    found, wanted = _stacked(texts, ours), _stacked(texts, theirs)
    shapes = [{output: each.shape for output, each in of.items()} for of in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise ConversionError(f"the result gives numbers of {shapes[0]}, not {shapes[1]}")
    if purpose is Ability.RERANK:
        difference = np.abs(_chances(found[Output.DENSE]) - _chances(wanted[Output.DENSE])).max()
        return Comparison(len(texts), score_difference=float(difference))
    cosines = _cosines(found[Output.DENSE], wanted[Output.DENSE])
    weights = token_cosines = None
    if Output.SPARSE in found:
        difference = np.abs(found[Output.SPARSE] - wanted[Output.SPARSE]).max()
        weights = float(difference / max(wanted[Output.SPARSE].max(), _NO_WEIGHT))
    if Output.COLBERT in found:
        token_cosines = float(_cosines(found[Output.COLBERT], wanted[Output.COLBERT]).min())
    return Comparison(
        len(texts),
        float(cosines.min()),
        float(cosines.mean()),
        weight_difference=weights,
        least_token_cosine=token_cosines,
    )


@dataclass(frozen=True, slots=True)
class Computed:
    """An ONNX file as the engine computes it."""

    heads: Mapping[Output, Head]
    says: Says


def computed(files: OnnxFiles, purpose: Ability) -> Computed:
    """Return what an ONNX file computes; raises LoadError when it cannot be loaded.

    It is a score, or the vector as the model's files pool it, with what further heads there are.
    """
    session = Session(files.model, threads=cpu_quota(), padding=files.padding, second_type=1)
    pooling = PoolingType.AUTO
    if pooled_output(session.outputs) is None:
        pooling = files.pooling or pooling
    heads = heads_for(purpose, pooling, session.outputs)

    def says(text: Sequence[int]) -> Mapping[Output, Numbers]:
        # Beside the longest, as what it is filled up with must count for nothing.
        found = session.run([text, [0] * LONGEST][: 1 + (len(text) < LONGEST)], [*heads.values()])
        return {output: rows[0] for output, rows in zip(heads, found, strict=True)}

    return Computed(heads, says)


def _stacked(texts: Sequence[Sequence[int]], says: Says) -> dict[Output, Numbers]:
    """Return what is said of all texts, what is of tokens one behind the other."""
    said = [says(text) for text in texts]
    return {
        output: (np.stack if output is Output.DENSE else np.concatenate)(
            [each[output] for each in said]
        )
        for output in said[0]
    }


def _cosines(left: Numbers, right: Numbers) -> Numbers:
    return (_units(left) * _units(right)).sum(axis=1)


def _units(rows: Numbers) -> Numbers:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _chances(scores: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-scores.astype(np.float64)))
