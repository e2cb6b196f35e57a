"""The engines there are: one line each, and which of them a file is for."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.worker.backend import Backend, LogSink


def _llamacpp(log: LogSink) -> Backend:
    from ullage_runtime.engines.llamacpp.backend import LlamaCppBackend

    return LlamaCppBackend(log)


def _onnx(log: LogSink) -> Backend:
    from ullage_runtime.engines.onnx.backend import OnnxBackend

    return OnnxBackend(log)


_OPENERS: Final[dict[str, Callable[[LogSink], Backend]]] = {
    "LlamaCpp": _llamacpp,
    "ONNXRuntime": _onnx,
}
_MAGICS: Final[dict[bytes, str]] = {b"GGUF": "LlamaCpp"}
_SUFFIXES: Final[dict[str, str]] = {".onnx": "ONNXRuntime"}
"""Formats that begin like anything else, and are known by their names."""


def open_backend(engine: str, log: LogSink) -> Backend:
    """Return an engine's backend; only a worker process calls it, for it loads the library."""
    return _OPENERS[engine](log)


def engine_of(path: str) -> str:
    """Return the name of the engine for a model: a file, or the folder of several.

    A file is known by its first bytes or by its name. Raises LoadError.
    """
    if Path(path).is_dir():
        return _engine_of_folder(Path(path))
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
        raise LoadError(
            Reason.INVALID_MODEL,
            f"not a model file that any engine here can load: it begins with {magic.hex(' ')!r}, "
            "a GGUF file with '47 47 55 46'",
            final=True,
        )
    return engine


def _engine_of_folder(folder: Path) -> str:
    names = sorted(path.name for path in folder.rglob("*.*"))
    found = next(
        (_SUFFIXES[end] for name in names if (end := Path(name).suffix) in _SUFFIXES), None
    )
    if found is None:
        raise LoadError(
            Reason.INVALID_MODEL,
            f"no engine here can load what the folder holds: {', '.join(names[:8])[:300]}; "
            "GGUF and ONNX can be loaded",
            final=True,
        )
    return found
