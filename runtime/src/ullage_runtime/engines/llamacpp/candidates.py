"""All tokens with their logits, in the form that llama.cpp's samplers take."""

import array
import ctypes
import math
from typing import Any, Final

from ullage_runtime.engines.llamacpp.bindings import llama_cpp

_FIELDS: Final = 3
"""Words of a `llama_token_data`: id, logit, probability."""


class Candidates:
    """One array for a whole vocabulary, filled anew from each row of logits.

    Filling it element by element would take Python longer than the model takes for a token, so the
    words are laid out by slices.

    llama.cpp lays a row out itself where it samples, in memory that each chain has of its own: of
    many chains it leaves the processor's caches before its turn comes again. So all chains take
    turns inside one.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size
        ids = array.array("i", bytes(4 * _FIELDS * vocabulary_size))
        ids[::_FIELDS] = array.array("i", range(vocabulary_size))
        self._template = ids.tobytes()
        self._data = (llama_cpp.llama_token_data * vocabulary_size)()
        self._turns: Any = llama_cpp.llama_sampler_chain_init(
            llama_cpp.llama_sampler_chain_default_params()
        )

    def sampled(self, chain: Any, context: Any, row: int) -> int:
        """Return the token that a chain takes after a row of the last decode call."""
        llama_cpp.llama_sampler_chain_add(self._turns, chain)
        try:
            return int(llama_cpp.llama_sampler_sample(self._turns, context, row))
        finally:
            llama_cpp.llama_sampler_chain_remove(self._turns, 0)  # else it would be freed with it

    def close(self) -> None:
        """Free what llama.cpp holds for it; idempotent."""
        if self._turns is not None:
            llama_cpp.llama_sampler_free(self._turns)
            self._turns = None

    def filled(self, logits: Any) -> Any:
        """Return a `llama_token_data_array` of a row of logits; the next call overwrites it."""
        row = array.array("f")
        row.frombytes(ctypes.string_at(logits, 4 * self._size))
        words = array.array("f")
        words.frombytes(self._template)
        words[1::_FIELDS] = row
        ctypes.memmove(self._data, words.buffer_info()[0], len(self._template))
        return token_array(self._data, self._size)


def single(token: int) -> Any:
    """Return an array of one token."""
    data = (llama_cpp.llama_token_data * 1)()
    data[0].id, data[0].logit, data[0].p = token, 1.0, 0.0
    return token_array(data, 1)


def token_array(data: Any, size: int) -> Any:
    """Return llama.cpp's view of candidates."""
    pointer = ctypes.cast(data, llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=pointer, size=size, selected=-1, sorted=False)


def likeliest(candidates: Any, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the logarithm of the sum of all exponentials, and the first tokens with their logits.

    llama.cpp computes the probabilities and sorts; the sum follows from the likeliest token's
    logit and probability.
    """
    softmax = llama_cpp.llama_sampler_init_dist(0)
    top = llama_cpp.llama_sampler_init_top_k(max(1, count))
    try:
        llama_cpp.llama_sampler_apply(softmax, ctypes.byref(candidates))
        llama_cpp.llama_sampler_apply(top, ctypes.byref(candidates))
    finally:
        llama_cpp.llama_sampler_free(softmax)
        llama_cpp.llama_sampler_free(top)
    first = candidates.data[0]
    total = first.logit - math.log(first.p)
    return total, [(candidates.data[i].id, candidates.data[i].logit) for i in range(count)]
