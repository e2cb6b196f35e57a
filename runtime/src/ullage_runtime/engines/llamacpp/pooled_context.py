"""PooledContext: a context of llama.cpp that computes whole texts, one result for each."""

import ctypes
from collections.abc import Collection, Sequence
from typing import Any, Final

from ullage_runtime.core.errors import EngineFailed
from ullage_runtime.core.pooled import Output, Said
from ullage_runtime.core.scheduling.port import Run
from ullage_runtime.core.vectors import FLOAT_BYTES
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.rows import Rows
from ullage_runtime.engines.pooled.texts import Frame

_DONE: Final = 0


class PooledContext:
    """Each text is a sequence of its own; nothing is kept from one batch to the next."""

    outputs: tuple[Output, ...] = (Output.DENSE,)
    token_width = 0
    _wants_all = True
    """Whether all tokens of a text have a say in its result, or its last one only."""

    def __init__(self, model: Model, width: int) -> None:
        """`width` is how many numbers a result has."""
        self._handle = model.context
        self._width = width
        # An encoder has no memory; its batches do not go through a cache.
        self._memory: Any = llama_cpp.llama_get_memory(self._handle)
        self._rows = Rows(model.batch)

    def compute(
        self,
        texts: Sequence[Sequence[int]],
        outputs: Collection[Output],  # noqa: ARG002 - there is but one
    ) -> list[Said]:
        """Return each text's vector or score; raises EngineFailed."""
        rows = self._rows.filled(
            Run(sequence, 0, text, wants_logits=True, wants_all=self._wants_all)
            for sequence, text in enumerate(texts)
        )
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)  # noqa: FBT003 - llama.h has no names
            result = llama_cpp.llama_decode(self._handle, rows)
        else:
            result = llama_cpp.llama_encode(self._handle, rows)
        if result != _DONE:
            raise EngineFailed(
                f"llama.cpp could not compute a batch of {len(texts)} texts", retry_after=1
            )
        return [Said(self._numbers(sequence, texts)) for sequence in range(len(texts))]

    def close(self) -> None:
        """Free what is computed from; idempotent. The model frees the rest."""
        self._rows.close()

    def _numbers(self, sequence: int, _texts: Sequence[Sequence[int]]) -> bytes:
        found = llama_cpp.llama_get_embeddings_seq(self._handle, sequence)
        if not found:
            raise EngineFailed("llama.cpp gave no result for a text", retry_after=1)
        return ctypes.string_at(found, self._width * FLOAT_BYTES)


def frame_of(model: Model) -> Frame:
    """Return the special tokens that a vocabulary wants around texts, and between two of a pair."""
    around = model.tokenized("")
    opens = 1 if model.bos is not None and around[:1] == [model.bos] else 0
    closing = around[opens:]
    separator = model.separator
    own = [] if separator is None or [separator] == closing else [separator]
    return Frame(tuple(around[:opens]), (*closing, *own), tuple(closing))
