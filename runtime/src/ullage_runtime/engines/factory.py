"""How the server comes by an engine: a worker process for the engine that a file is for."""

from typing import Protocol

from ullage_runtime.engines.base import Engine
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine


class EngineFactory(Protocol):
    """Whoever starts engines."""

    async def __call__(self, path: str, gpus: str = "") -> Engine:
        """Return an engine for a model file, not yet loaded; raises LoadError.

        It sees no other GPUs than `gpus`, in CUDA's words; empty: it sees what this process does.
        """
        ...


async def start_worker(path: str, gpus: str = "") -> Engine:
    """Start a worker for a model file; an `EngineFactory`."""
    return await WorkerEngine.start(engine_of(path), gpus)
