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


_OPENERS: Final[dict[str, Callable[[LogSink], Backend]]] = {"LlamaCpp": _llamacpp}
_MAGICS: Final[dict[bytes, str]] = {b"GGUF": "LlamaCpp"}


def open_backend(engine: str, log: LogSink) -> Backend:
    """Return an engine's backend; only a worker process calls it, for it loads the library."""
    return _OPENERS[engine](log)


def engine_of(path: str) -> str:
    """Return the name of the engine for a model file, by its first bytes; raises LoadError."""
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
