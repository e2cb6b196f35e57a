"""LlamaContext: the scheduler's port onto llama.cpp's unified key-value memory."""

import ctypes
from collections.abc import Sequence
from typing import Any, Final

from ullage_runtime.core.scheduling.memory import MAX_IDLE
from ullage_runtime.core.scheduling.port import Decoded, Run
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.model import MAX_SEQUENCES, Model
from ullage_runtime.engines.llamacpp.rows import Rows

_DONE: Final = 0
_NO_SLOT: Final = 1


class LlamaContext:
    """Slots are llama.cpp's sequences; cells are shared by them without being copied.

    A recurrent model has one state per sequence instead of cells, and a sliding window forgets what
    a prefix would need; neither shares prefixes. Both are saved and restored whole.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._handle = model.context
        self._memory: Any = llama_cpp.llama_get_memory(self._handle)
        self._rows = Rows(model.batch)

    @property
    def cells(self) -> int:
        """Tokens that all sequences together can hold."""
        return self._model.context_length

    @property
    def slots(self) -> int:
        """Sequence ids there are."""
        parallel = self._model.parallel
        return min(MAX_SEQUENCES, parallel + MAX_IDLE) if self.shares_prefixes else parallel

    @property
    def batch(self) -> int:
        """Tokens of one decode call."""
        return self._model.batch

    @property
    def shares_prefixes(self) -> bool:
        """Whether every token's keys and values stay where they are."""
        return not self._model.is_recurrent and not self._model.has_sliding_window

    def decode(self, runs: Sequence[Run]) -> Decoded:
        """Compute all runs in one call."""
        self._model.apply(runs[0].adapter)
        result = llama_cpp.llama_decode(self._handle, self._rows.filled(runs))
        if result == _DONE:
            return Decoded.DONE
        return Decoded.NO_ROOM if result == _NO_SLOT else Decoded.FAILED

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a sequence begin with another's cells."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def remove(self, slot: int) -> None:
        """Take a sequence off its cells."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def saved_size(self, slot: int) -> int:
        """Return the bytes of a sequence's keys and values."""
        return int(llama_cpp.llama_state_seq_get_size(self._handle, slot))

    def save(self, slot: int) -> bytes | None:
        """Return a sequence's keys and values."""
        size = self.saved_size(slot)
        if not size:
            return None
        buffer = (ctypes.c_uint8 * size)()
        taken = llama_cpp.llama_state_seq_get_data(self._handle, buffer, size, slot)
        return bytes(buffer) if taken == size else None

    def restore(self, slot: int, saved: bytes) -> bool:
        """Give a sequence its keys and values back."""
        buffer = ctypes.cast(ctypes.c_char_p(saved), ctypes.POINTER(ctypes.c_uint8))
        taken = llama_cpp.llama_state_seq_set_data(self._handle, buffer, len(saved), slot)
        if taken:
            return True
        self.remove(slot)
        return False

    def clear(self) -> None:
        """Forget everything."""
        llama_cpp.llama_memory_clear(self._memory, True)  # noqa: FBT003 - llama.h has no names

    def close(self) -> None:
        """Free what is computed from; idempotent. The model frees the rest."""
        self._rows.close()
