"""The engines there are: one line each, and which of them a file is for."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError, invalid_model
from ullage_runtime.engines.worker.backend import Backend, LogSink


def _llamacpp(log: LogSink) -> Backend:
    from ullage_runtime.engines.llamacpp.backend import LlamaCppBackend

    return LlamaCppBackend(log)


def _onnx(log: LogSink) -> Backend:
    from ullage_runtime.engines.onnx.backend import OnnxBackend

    return OnnxBackend(log)


def _vllm(log: LogSink) -> Backend:
    from ullage_runtime.engines.vllm.backend import VllmBackend

    return VllmBackend(log)


_OPENERS: Final[dict[str, Callable[[LogSink], Backend]]] = {
    "LlamaCpp": _llamacpp,
    "ONNXRuntime": _onnx,
    "VLLM": _vllm,
}
_MAGICS: Final[dict[bytes, str]] = {b"GGUF": "LlamaCpp"}
_SUFFIXES: Final[dict[str, str]] = {".onnx": "ONNXRuntime", ".safetensors": "VLLM"}
"""Formats that begin like anything else, and are known by their names; the first is preferred."""

STARTS_ALONE: Final = frozenset({"VLLM"})
"""Engines that look at the device while they start, and expect nobody else to change it."""


def open_backend(engine: str, log: LogSink) -> Backend:
    """Return an engine's backend; only a worker process calls it, for it loads the library."""
    return _OPENERS[engine](log)


def engine_of(path: str) -> str:
    """Return the name of the engine for a model: a file, or the folder of several.

    A file is known by its first bytes or by its name. Raises LoadError, also for an engine that is
    not installed.
    """
    engine = _engine_of_folder(Path(path)) if Path(path).is_dir() else _engine_of_file(path)
    if engine == "VLLM" and find_spec("vllm") is None:
        raise invalid_model(
            f"{Path(path).name} holds safetensors, which vLLM serves, and this image has no vLLM: "
            "take one that was built with VLLM=true, or a model in GGUF or ONNX"
        )
    return engine


def _engine_of_file(path: str) -> str:
    by_name = _SUFFIXES.get(Path(path).suffix)
    if by_name is not None:
        return by_name
    try:
        with Path(path).open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LoadError(
            Reason.INVALID_MODEL, f"the model file cannot be read: {error.strerror}", final=False
        ) from error
    engine = _MAGICS.get(magic)
    if engine is None:
        raise invalid_model(
            f"not a model file that any engine here can load: it begins with {magic.hex(' ')!r}, "
            "a GGUF file with '47 47 55 46'"
        )
    return engine


def _engine_of_folder(folder: Path) -> str:
    names = sorted(path.name for path in folder.rglob("*.*"))
    endings = {Path(name).suffix for name in names}
    found = next((engine for ending, engine in _SUFFIXES.items() if ending in endings), None)
    if found is None:
        raise invalid_model(
            f"no engine here can load what the folder holds: {', '.join(names[:8])[:300]}; "
            "GGUF, ONNX and safetensors can be loaded"
        )
    return found
