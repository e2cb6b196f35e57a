"""Heads: what is made of the numbers that a graph gives, one thing for each text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.pooled import Ability, Output, PoolingType

Numbers = Any
"""An array of numpy's."""

_POOLED: Final = ("sentence_embedding", "dense_vecs")
"""What exporters call a vector that is pooled already, as the model was trained to be."""
_LOGITS: Final = "logits"
FURTHER: Final = {Output.SPARSE: "sparse_vecs", Output.COLBERT: "colbert_vecs"}
"""What exporters of BGE-M3 call the outputs of its further heads."""
_OF_TOKENS: Final = 3
_OF_TEXTS: Final = 2


@dataclass(frozen=True, slots=True)
class Head:
    """An output of the graph, and how it becomes numbers for each text."""

    output: str
    rows: Callable[[Numbers, Numbers], Iterable[Numbers]]
    """Takes the output and the texts' lengths in tokens; gives an array for each text.

    It is a vector or a score; or a weight for each token; or a vector for each token but the first.
    """


def heads_for(
    purpose: Ability, pooling: PoolingType, shapes: Mapping[str, Sequence[object]]
) -> dict[Output, Head]:
    """Return the heads for what a model is loaded for; there is always one for `DENSE`.

    `shapes` are those of the graph's outputs that are numbers. Raises LoadError when none will do.
    """
    if purpose is Ability.RERANK:
        return {Output.DENSE: _score(shapes)}
    heads = {Output.DENSE: _vector(pooling, shapes)}
    if FURTHER[Output.SPARSE] in shapes:
        heads[Output.SPARSE] = Head(FURTHER[Output.SPARSE], _token_weights)
    if FURTHER[Output.COLBERT] in shapes:
        heads[Output.COLBERT] = Head(FURTHER[Output.COLBERT], _token_vectors)
    return heads


def pooled_output(shapes: Mapping[str, Sequence[object]]) -> str | None:
    """Return the name of the output that is a vector of a whole text, if there is one."""
    return next((name for name in _POOLED if len(shapes.get(name, ())) == _OF_TEXTS), None)


def _score(shapes: Mapping[str, Sequence[object]]) -> Head:
    of_texts = [name for name, shape in shapes.items() if len(shape) <= _OF_TEXTS]
    name = _LOGITS if _LOGITS in of_texts else next(iter(of_texts), None)
    if name is None or name in _POOLED:
        raise invalid_model(
            f"the graph gives no score of a text but {_listed(shapes)}, so it is no cross-encoder; "
            "with task Embedding it ranks by the cosine of its embeddings"
        )
    count = shapes[name][1:]
    if any(isinstance(size, int) and size != 1 for size in count):
        raise invalid_model(
            f"the graph gives {count[0]} scores of a pair, so it is a classifier; a cross-encoder "
            "gives one"
        )
    return Head(name, lambda values, _lengths: values.reshape(len(values), -1))


def _vector(pooling: PoolingType, shapes: Mapping[str, Sequence[object]]) -> Head:
    pooled = pooled_output(shapes)
    if pooling is PoolingType.AUTO and pooled is not None:
        return Head(pooled, lambda values, _lengths: values)
    of_tokens = [
        name
        for name, shape in shapes.items()
        if len(shape) == _OF_TOKENS and name not in FURTHER.values()
    ]
    if not of_tokens:
        raise invalid_model(
            f"the graph gives no vectors of tokens but {_listed(shapes)}, so its task cannot be "
            "Embedding"
            if pooled is None
            else f"the graph pools by itself, into {pooled}; leave engine.pooling out"
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


def _token_weights(values: Numbers, lengths: Numbers) -> Iterable[Numbers]:
    by_text = values.reshape(values.shape[:2])
    return [row[:length] for row, length in zip(by_text, lengths, strict=True)]


def _token_vectors(values: Numbers, lengths: Numbers) -> Iterable[Numbers]:
    # The first token's is that of the whole text; some graphs leave it out, some do not.
    start = values.shape[1] - (int(lengths.max()) - 1)
    return [row[start : start + length - 1] for row, length in zip(values, lengths, strict=True)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name[:64] for name in list(names)[:8]) or "nothing"
