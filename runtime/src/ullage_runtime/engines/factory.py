"""How the server comes by an engine: a worker process for the engine that a file is for."""

from collections.abc import Awaitable, Callable

from ullage_runtime.engines.base import Engine
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine

EngineFactory = Callable[[str], Awaitable[Engine]]
"""Takes the path of a model file and returns its engine, not yet loaded; raises LoadError."""


async def start_worker(path: str) -> Engine:
    """Start a worker for a model file; raises LoadError."""
    return await WorkerEngine.start(engine_of(path))
