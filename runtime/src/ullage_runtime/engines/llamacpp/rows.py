"""Rows: what one call of llama.cpp computes, in the memory that it is read from."""

from collections.abc import Iterable
from typing import Any

from ullage_runtime.core.scheduling.port import Run
from ullage_runtime.engines.llamacpp.bindings import llama_cpp


class Rows:
    """A `llama_batch` of so many tokens at most, filled anew for each call."""

    def __init__(self, tokens: int) -> None:
        self._batch: Any = llama_cpp.llama_batch_init(tokens, 0, 1)

    def filled(self, runs: Iterable[Run]) -> Any:
        """Return the batch with the tokens of some runs; the next call overwrites it."""
        batch, at = self._batch, 0
        token, pos, n_seq_id = batch.token, batch.pos, batch.n_seq_id
        seq_id, logits = batch.seq_id, batch.logits
        for run in runs:
            for index, value in enumerate(run.tokens):
                token[at] = value
                pos[at] = run.position + index
                n_seq_id[at] = 1
                seq_id[at][0] = run.slot
                logits[at] = run.wants_all
                at += 1
            logits[at - 1] = run.wants_logits or run.wants_all
        batch.n_tokens = at
        return batch

    def close(self) -> None:
        """Free it; idempotent."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
            self._batch = None
