"""The limit: llama.cpp's decode call in a bare loop, with nobody to serve.

Runs in a process of its own, under the same conditions as the server that is compared with it.
"""

import argparse
import json
import time
from typing import Any

import llama_cpp

from ullage_runtime.engines.llamacpp.library import load_backends

BATCH = 512


def opened(path: str, threads: int, width: int, context: int) -> tuple[Any, Any]:
    """Return a model and its context."""
    load_backends()
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context * width
    params.n_batch = params.n_ubatch = BATCH
    params.n_seq_max = width
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    return model, llama_cpp.llama_init_from_model(model, params)


class Loop:
    """Sequences of equal length, computed together from beginning to end."""

    def __init__(self, context: Any, width: int) -> None:
        self._context = context
        self._width = width
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        chain = llama_cpp.llama_sampler_chain_default_params()
        self._sampler = llama_cpp.llama_sampler_chain_init(chain)
        llama_cpp.llama_sampler_chain_add(self._sampler, llama_cpp.llama_sampler_init_greedy())

    def seconds(self, prompt_tokens: int, output_tokens: int) -> float:
        """Return the seconds that prompts and answers of all sequences take together."""
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, True)  # noqa: FBT003 - llama.h has no names
        began = time.perf_counter()
        at_once = max(1, BATCH // prompt_tokens)
        newest = [0] * self._width
        for first in range(0, self._width, at_once):
            group = range(first, min(first + at_once, self._width))
            entries = [
                (35 + (sequence * 7 + position * 13) % 90, position, sequence)
                for sequence in group
                for position in range(prompt_tokens)
            ]
            rows = [(1 + index) * prompt_tokens - 1 for index in range(len(group))]
            self._decode(entries, set(rows))
            for sequence, row in zip(group, rows, strict=True):
                newest[sequence] = self._sampled(row)
        for position in range(prompt_tokens, prompt_tokens + output_tokens - 1):
            entries = [(token, position, sequence) for sequence, token in enumerate(newest)]
            self._decode(entries, set(range(self._width)))
            newest = [self._sampled(row) for row in range(self._width)]
        return time.perf_counter() - began

    def _decode(self, entries: list[tuple[int, int, int]], rows: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(entries)
        for at, (token, position, sequence) in enumerate(entries):
            batch.token[at], batch.pos[at] = token, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = at in rows
        if llama_cpp.llama_decode(self._context, batch):
            raise SystemExit("llama_decode failed")

    def _sampled(self, row: int) -> int:
        return int(llama_cpp.llama_sampler_sample(self._sampler, self._context, row))


def main() -> None:
    """Print the seconds of each round as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    for name in ("threads", "width", "context", "prompt-tokens", "output-tokens", "rounds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    _, context = opened(given.model, given.threads, given.width, given.context)
    loop = Loop(context, given.width)
    loop.seconds(given.prompt_tokens, 4)
    times = [loop.seconds(given.prompt_tokens, given.output_tokens) for _ in range(given.rounds)]
    print(json.dumps(times))


if __name__ == "__main__":
    main()
