"""Attention as ggml computes it, by itself: one operation on tensors of our own."""

import ctypes
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

F32, F16 = 0, 1
MEMORY_BYTES = 256 << 20


class _InitParams(ctypes.Structure):
    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


@dataclass(frozen=True)
class Attention:
    """What is asked: queries `[row, head, size]`, keys and values `[cell, head, size]`."""

    q: Floats
    k: Floats
    v: Floats
    seen: NDArray[np.bool_]
    """Which cells each row sees: `[row, cell]`."""
    max_bias: float = 0.0
    logit_softcap: float = 0.0
    sinks: Floats | None = None

    @property
    def scale(self) -> float:
        """What products are multiplied with."""
        return float(self.q.shape[2] ** -0.5)

    @property
    def mask(self) -> Floats:
        """What is added to the products, before the heads' slopes."""
        distance = np.abs(np.arange(len(self.k))[None, :] - len(self.k)) / len(self.k)
        biased = -distance if self.max_bias else np.zeros_like(distance)
        return np.where(self.seen, biased, -np.inf).astype(np.float16).astype(np.float32)


def exact(asked: Attention) -> Floats:
    """Return what comes of it in double precision, `[row, head, size]`."""
    heads = asked.q.shape[1]
    share = heads // asked.k.shape[1]
    k = asked.k.astype(np.float16).astype(np.float64).repeat(share, axis=1)
    v = asked.v.astype(np.float16).astype(np.float64).repeat(share, axis=1)
    scores = np.einsum("rhd,chd->rhc", asked.q.astype(np.float64), k) * asked.scale
    if cap := asked.logit_softcap:
        scores = cap * np.tanh(scores / cap)
    power = 2 ** int(np.log2(heads))
    slopes = [
        (2.0 ** (-asked.max_bias / power)) ** (h + 1)
        if h < power
        else (2.0 ** (-asked.max_bias / 2 / power)) ** (2 * (h - power) + 1)
        for h in range(heads)
    ]
    scores = scores + np.array(slopes)[None, :, None] * asked.mask[:, None, :]
    extra = asked.sinks if asked.sinks is not None else np.full(heads, -np.inf)
    most = np.maximum(scores.max(axis=2), extra[None, :])[:, :, None]
    weights = np.exp(scores - most)
    whole = weights.sum(axis=2, keepdims=True) + np.exp(extra[None, :, None] - most)
    found: Floats = np.einsum("rhc,chd->rhd", weights / whole, v).astype(np.float32)
    return found


def variants() -> list[Path]:
    """Return the libraries for kinds of CPU with AVX2 that this one is, or comprises."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise RuntimeError("llama-cpp-python is not installed")
    names = ("haswell", "skylakex", "icelake", "zen4", "sapphirerapids")
    files = [Path(spec.origin).parents[1] / "bin" / f"libggml-cpu-{name}.so" for name in names]
    return [file for file in files if file.is_file() and _library(file).ggml_backend_score() > 0]


@cache
def _base() -> ctypes.CDLL:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise RuntimeError("llama-cpp-python is not installed")
    base = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so.0"))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    base.ggml_init.argtypes = [_InitParams]
    base.ggml_new_tensor_4d.argtypes = [pointer, ctypes.c_int, size, size, size, size]
    base.ggml_permute.argtypes = [pointer, pointer, *[ctypes.c_int] * 4]
    base.ggml_get_data.argtypes = [pointer]
    base.ggml_flash_attn_ext.argtypes = [*[pointer] * 5, *[ctypes.c_float] * 3]
    base.ggml_flash_attn_ext_add_sinks.argtypes = [pointer, pointer]
    base.ggml_flash_attn_ext_add_sinks.restype = None
    base.ggml_new_graph.argtypes = [pointer]
    base.ggml_build_forward_expand.argtypes = [pointer, pointer]
    base.ggml_build_forward_expand.restype = None
    base.ggml_backend_graph_compute.argtypes = [pointer, pointer]
    base.ggml_backend_free.argtypes = [pointer]
    base.ggml_backend_free.restype = None
    base.ggml_free.argtypes = [pointer]
    base.ggml_free.restype = None
    for name in ("init", "new_tensor_4d", "permute", "get_data", "flash_attn_ext", "new_graph"):
        getattr(base, f"ggml_{name}").restype = pointer
    return base


@cache
def _library(file: Path) -> ctypes.CDLL:
    _base()
    library = ctypes.CDLL(str(file))
    library.ggml_backend_cpu_init.restype = ctypes.c_void_p
    library.ggml_backend_cpu_set_n_threads.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.ggml_backend_cpu_set_n_threads.restype = None
    return library


def computed(asked: Attention, variant: Path, threads: int) -> Floats:
    """Return what ggml makes of it, with tensors laid out as llama.cpp's cache has them."""
    base, library = _base(), _library(variant)
    context = base.ggml_init(_InitParams(MEMORY_BYTES, None, False))  # noqa: FBT003 - C has no names
    backend = library.ggml_backend_cpu_init()
    try:
        library.ggml_backend_cpu_set_n_threads(backend, threads)
        q, k, v = (
            base.ggml_permute(context, _tensor(context, values, kind), 0, 2, 1, 3)
            for values, kind in ((asked.q, F32), (asked.k, F16), (asked.v, F16))
        )
        mask = _tensor(context, asked.mask, F16)
        found = base.ggml_flash_attn_ext(
            context, q, k, v, mask, asked.scale, asked.max_bias, asked.logit_softcap
        )
        if asked.sinks is not None:
            base.ggml_flash_attn_ext_add_sinks(found, _tensor(context, asked.sinks, F32))
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, found)
        if base.ggml_backend_graph_compute(backend, graph):
            raise RuntimeError("ggml computes nothing")
        shape = (asked.q.shape[0], asked.q.shape[1], asked.v.shape[2])
        result: Floats = _array(base.ggml_get_data(found), shape, np.dtype(np.float32)).copy()
        return result
    finally:
        base.ggml_backend_free(backend)
        base.ggml_free(context)


def _tensor(context: int, values: Floats, kind: int) -> int:
    kept = values.astype(np.float16 if kind == F16 else np.float32)
    sizes = [*reversed(kept.shape), 1, 1, 1][:4]
    tensor: int = _base().ggml_new_tensor_4d(context, kind, *sizes)
    _array(_base().ggml_get_data(tensor), kept.shape, kept.dtype)[...] = kept
    return tensor


def _array(address: int, shape: Sequence[int], dtype: Any) -> Any:
    size = math.prod(shape) * dtype.itemsize
    memory = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    return np.frombuffer(memory, dtype=dtype).reshape(shape)
