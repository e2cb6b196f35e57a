"""Heads: what is made of the numbers that a graph gives, one thing for each text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ullage_runtime.core.pooled import Ability, PoolingType
from ullage_runtime.engines.onnx.files import invalid

Numbers = Any
"""An array of numpy's."""

_POOLED: Final = "sentence_embedding"
"""What exporters call a vector that is pooled already, as the model was trained to be."""
_LOGITS: Final = "logits"
_OF_TOKENS: Final = 3
_OF_TEXTS: Final = 2


@dataclass(frozen=True, slots=True)
class Head:
    """An output of the graph, and how it becomes a row of numbers for each text."""

    output: str
    rows: Callable[[Numbers, Numbers], Numbers]
    """Takes the output and the texts' lengths in tokens."""


def head_for(
    purpose: Ability, pooling: PoolingType, shapes: Mapping[str, Sequence[object]]
) -> Head:
    """Return the head for what a model is loaded for.

    `shapes` are those of the graph's outputs that are numbers. Raises LoadError when none will do.
    """
    return _score(shapes) if purpose is Ability.RERANK else _vector(pooling, shapes)


def _score(shapes: Mapping[str, Sequence[object]]) -> Head:
    of_texts = [name for name, shape in shapes.items() if len(shape) <= _OF_TEXTS]
    name = _LOGITS if _LOGITS in of_texts else next(iter(of_texts), None)
    if name is None or name == _POOLED:
        raise invalid(
            f"the graph gives no score of a text but {_listed(shapes)}, so it is no cross-encoder; "
            "with task Embedding it ranks by the cosine of its embeddings"
        )
    count = shapes[name][1:]
    if any(isinstance(size, int) and size != 1 for size in count):
        raise invalid(
            f"the graph gives {count[0]} scores of a pair, so it is a classifier; a cross-encoder "
            "gives one"
        )
    return Head(name, lambda values, _lengths: values.reshape(len(values), -1))


def _vector(pooling: PoolingType, shapes: Mapping[str, Sequence[object]]) -> Head:
    if pooling is PoolingType.AUTO and len(shapes.get(_POOLED, ())) == _OF_TEXTS:
        return Head(_POOLED, lambda values, _lengths: values)
    of_tokens = [name for name, shape in shapes.items() if len(shape) == _OF_TOKENS]
    if not of_tokens:
        raise invalid(
            f"the graph gives no vectors of tokens but {_listed(shapes)}, so its task cannot be "
            "Embedding"
        )
    match pooling:
        case PoolingType.CLS:
            return Head(of_tokens[0], lambda values, _lengths: values[:, 0])
        case PoolingType.LAST:
            return Head(of_tokens[0], _last)
        case PoolingType.MEAN | PoolingType.AUTO:
            return Head(of_tokens[0], _mean)


def _last(values: Numbers, lengths: Numbers) -> Numbers:
    return values[np.arange(len(values)), lengths - 1]


def _mean(values: Numbers, lengths: Numbers) -> Numbers:
    real = np.arange(values.shape[1]) < lengths[:, None]
    # Numbers of what a text was filled up with count for nothing, even if they are none.
    sums = np.where(real[:, :, None], values, 0).sum(axis=1, dtype=np.float32)
    return sums / lengths[:, None].astype(np.float32)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name[:64] for name in list(names)[:8]) or "nothing"
