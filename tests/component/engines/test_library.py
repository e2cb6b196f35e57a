"""The library itself: the bindings fit it, and its logs say what an estimate needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ullage_runtime.engines.llamacpp import library
from ullage_runtime.engines.llamacpp.estimate import (
    _CACHE,
    _COMPUTE,
    cache_bytes,
    compute_bytes,
    sum_of,
)
from ullage_runtime.engines.llamacpp.header import Header
from ullage_runtime.engines.llamacpp.library import LibraryMismatchError, check_layouts, row_bytes

MIB = 1 << 20


def test_the_bindings_fit_the_library() -> None:
    check_layouts()


def test_bindings_that_lag_their_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library._DEFAULTS, "context.n_batch", 1024)
    with pytest.raises(LibraryMismatchError, match=r"context\.n_batch"):
        check_layouts()


def test_the_library_may_log_when_nobody_listens_any_more() -> None:
    """In a process of its own, since calling what is gone ends it."""
    file = Path(__file__).parents[3] / "examples" / "models" / "guide-v1.gguf"
    program = f"""
import gc
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.library import Library
Library(lambda *_: None)
gc.collect()
parameters = llama_cpp.llama_model_default_params()
model = llama_cpp.llama_model_load_from_file({str(file).encode()!r}, parameters)
assert model
llama_cpp.llama_model_free(model)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_rows_are_as_long_as_their_type_makes_them() -> None:
    f32, f16, q8_0, q4_0 = 0, 1, 8, 2
    assert [row_bytes(t, 64) for t in (f32, f16, q8_0, q4_0)] == [256, 128, 68, 36]
    assert row_bytes(4, 64) is None, "a type that was removed"
    assert row_bytes(1 << 20, 64) is None


def test_sizes_are_read_off_the_log() -> None:
    lines = [
        "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =  192.00 MiB (  8192 cells,  12 layers,  1/1 seqs), K (f16): 96 MiB",
        "llama_kv_cache: size =   12.50 MiB (  1024 cells,   4 layers,  1/1 seqs), K (f16): 6 MiB",
        "llama_context:        CPU  output buffer size =     0.50 MiB",
        "sched_reserve:        CPU compute buffer size =    66.50 MiB",
    ]
    assert sum_of(_CACHE, lines) == 204.5 * MIB
    assert sum_of(_COMPUTE, lines) == 67 * MIB


def test_without_a_log_the_cache_follows_from_the_header() -> None:
    grouped = Header(
        tensors=1,
        tensor_bytes=1,
        strings={"general.architecture": "llama"},
        integers={
            "llama.block_count": 32,
            "llama.embedding_length": 4096,
            "llama.attention.head_count": 32,
            "llama.attention.head_count_kv": 8,
        },
    )
    f16, q8_0 = 1, 8
    assert cache_bytes(grouped, 8192, f16) == 1024 * MIB
    assert cache_bytes(grouped, 8192, q8_0) == 544 * MIB
    assert compute_bytes(128_256) == 2 * 512 * 128_256 * 4


def test_layers_may_have_different_numbers_of_heads_and_keys_another_length_than_values() -> None:
    uneven = Header(
        tensors=1,
        tensor_bytes=1,
        strings={"general.architecture": "deci"},
        integers={
            "deci.block_count": 3,
            "deci.embedding_length": 4096,
            "deci.attention.head_count": 32,
            "deci.attention.key_length": 192,
            "deci.attention.value_length": 128,
        },
        lists={"deci.attention.head_count_kv": (8, 0, 4)},
    )
    f16, q8_0 = 1, 8
    assert cache_bytes(uneven, 1024, f16) == 1024 * 12 * (192 + 128) * 2
    assert cache_bytes(uneven, 1024, q8_0) == 1024 * 12 * (192 + 128) * 34 // 32
