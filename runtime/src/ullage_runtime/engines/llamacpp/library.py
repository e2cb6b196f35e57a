"""llama.cpp's library: loaded once per process, with its backends, its log and checked layouts.

`llama-cpp-python` mirrors llama.cpp's structures in ctypes; a mirror that lags corrupts memory
silently. The fields we set are therefore compared, at import, with the defaults that the library
itself returns.
"""

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

from ullage_runtime.engines.llamacpp.bindings import VERSION, llama_cpp

_LEVELS: Final = {1: "debug", 2: "info", 3: "warning", 4: "error"}
_CONTINUED: Final = 5
_DEVICE_TYPE_GPU: Final = 1

_GGML: Final = llama_cpp._lib  # noqa: SLF001
"""ggml as libllama itself links it.

Loading libggml.so by its path can give a second copy, with a registry of backends of its own:
wheels hold copies where the build had links. Symbols found through libllama's handle are right.
"""

LineSink = Callable[[str, str], None]


class LibraryMismatchError(RuntimeError):
    """The bindings do not fit the library they were installed with."""


def check_layouts() -> None:
    """Raise LibraryMismatchError unless the fields we use hold llama.cpp's known defaults."""
    model = llama_cpp.llama_model_default_params()
    context = llama_cpp.llama_context_default_params()
    found = {
        "model.load_mode": model.load_mode,
        "model.n_gpu_layers": model.n_gpu_layers,
        "model.vocab_only": model.vocab_only,
        "model.check_tensors": model.check_tensors,
        "model.use_extra_bufts": model.use_extra_bufts,
        "model.no_alloc": model.no_alloc,
        "context.n_ctx": context.n_ctx,
        "context.n_batch": context.n_batch,
        "context.n_ubatch": context.n_ubatch,
        "context.n_seq_max": context.n_seq_max,
        "context.n_outputs_max": context.n_outputs_max,
        "context.type_k": context.type_k,
        "context.type_v": context.type_v,
        "context.embeddings": context.embeddings,
        "context.offload_kqv": context.offload_kqv,
        "context.no_perf": context.no_perf,
        "context.flash_attn_type": context.flash_attn_type,
        "context.kv_unified": context.kv_unified,
        "context.swa_full": context.swa_full,
        "context.n_threads": context.n_threads,
        "context.n_threads_batch": context.n_threads_batch,
    }
    wrong = {name: value for name, value in found.items() if value != _DEFAULTS[name]}
    if wrong:
        raise LibraryMismatchError(
            f"llama-cpp-python {VERSION} does not fit its llama.cpp: {wrong}"
        )


_F16: Final = 1
_DEFAULTS: Final[dict[str, object]] = {
    "model.load_mode": llama_cpp.LLAMA_LOAD_MODE_AUTO,
    "model.n_gpu_layers": -1,
    "model.vocab_only": False,
    "model.check_tensors": False,
    "model.use_extra_bufts": True,
    "model.no_alloc": False,
    "context.n_ctx": 512,
    "context.n_batch": 2048,
    "context.n_ubatch": 512,
    "context.n_seq_max": 1,
    "context.n_outputs_max": 0,
    "context.type_k": _F16,
    "context.type_v": _F16,
    "context.embeddings": False,
    "context.offload_kqv": True,
    "context.no_perf": True,
    "context.flash_attn_type": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "context.swa_full": True,
    "context.kv_unified": False,
    "context.n_threads": 4,
    "context.n_threads_batch": 4,
}


class Library:
    """The one initialised llama.cpp of a process."""

    _called: ClassVar[object] = None
    """What the library calls with its log: it keeps the pointer for good, so Python keeps it too,
    even when whoever set it is gone."""

    def __init__(self, log: LineSink) -> None:
        self._sinks: list[LineSink] = [log]
        self._level = "info"
        self._line = ""
        callback = llama_cpp.llama_log_callback(self._take)
        llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
        Library._called = callback
        check_layouts()
        load_backends()
        llama_cpp.llama_backend_init()

    @contextmanager
    def lines(self) -> Iterator[list[str]]:
        """Collect the lines that the library logs meanwhile."""
        collected: list[str] = []

        def collect(_level: str, text: str) -> None:
            collected.append(text)

        self._sinks.append(collect)
        try:
            yield collected
        finally:
            self._sinks.remove(collect)

    def _take(self, level: int, text: bytes, _data: object) -> None:
        """Take a piece of a line; the library logs some lines in several pieces."""
        if level != _CONTINUED:
            self._level = _LEVELS.get(level, "info")
        self._line += text.decode(errors="replace")
        while "\n" in self._line:
            line, _, self._line = self._line.partition("\n")
            if line.strip(" ."):
                for sink in tuple(self._sinks):
                    sink(self._level, line.rstrip())


@cache
def load_backends() -> None:
    """Load the compute backends that were built as libraries of their own, once.

    The CPU backend comes in a variant per instruction set; the loader scores them on this machine.
    A build with a compiled-in CPU backend has none of these files and nothing to load.
    """
    function = _GGML.ggml_backend_load_all_from_path
    function.argtypes, function.restype = [ctypes.c_char_p], None
    for folder in _backend_folders():
        function(str(folder).encode())


def _backend_folders() -> list[Path]:
    package = Path(llama_cpp.__file__).parent
    candidates = (package / "lib", package.parent / "bin", package.parent / "lib")
    found = [folder for folder in candidates if any(folder.glob("libggml-cpu-*.so"))]
    return found[:1]


def cpu_variant() -> str:
    """Return the loaded variant of the CPU backend, such as `zen4`; `native` if compiled in."""
    if sys.platform != "linux":
        return "native"
    mapped = Path("/proc/self/maps").read_text(errors="replace")
    found = re.search(r"libggml-cpu-([\w.]+)\.so", mapped)
    return found[1] if found else "native"


def gpu_name() -> str | None:
    """Return the description of the first GPU that the backends offer, or None."""
    ggml = _GGML
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_by_type.argtypes = [ctypes.c_int]
    device = ggml.ggml_backend_dev_by_type(_DEVICE_TYPE_GPU)
    if not device:
        return None
    function = _GGML.ggml_backend_dev_description
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_char_p
    text: bytes | None = function(device)
    return (text or b"GPU").decode(errors="replace")


def row_bytes(ggml_type: int, elements: int) -> int | None:
    """Return the bytes of a row of a quantised type, or None for a type that is not known."""
    if not 0 <= ggml_type < llama_cpp.GGML_TYPE_COUNT:
        return None
    block = _GGML.ggml_blck_size
    size = _GGML.ggml_type_size
    block.argtypes, block.restype = [ctypes.c_int], ctypes.c_int64
    size.argtypes, size.restype = [ctypes.c_int], ctypes.c_size_t
    per_block, bytes_per_block = block(ggml_type), size(ggml_type)
    if not per_block or not bytes_per_block:
        return None
    return int(elements // per_block * bytes_per_block)
