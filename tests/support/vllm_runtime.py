"""A runtime on a real socket with a model in safetensors, whose start takes its time."""

import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredAdapter, DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.models.pool import ModelPool

START = 360.0
"""Seconds that vLLM may take to start on a machine that is busy; 12 on one that is not."""


def model(
    name: str,
    file: str,
    task: Task = Task.CHAT,
    *,
    adapters: dict[str, str] | None = None,
    **engine: Any,
) -> DesiredModel:
    settings = EngineSettings(**{"context_length": 512, "threads": 1, **engine})
    wanted = tuple(
        DesiredAdapter(name=each, uri=f"file:{uri}", scale=1.0)
        for each, uri in (adapters or {}).items()
    )
    apart = None if task is Task.CHAT else task
    target = DesiredRevision(uri=f"file:{file}", engine=settings, adapters=wanted, task=apart)
    patience = ServingLimits(hold_seconds=int(START))
    return DesiredModel(name=name, task=task, ordinals=(0,), target=target, serving=patience)


def document(
    files: pathlib.Path, *models: DesiredModel, sequence: int = 1, **settings: Any
) -> PoolDesired:
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(files),), **settings),
        models=models,
    ).sealed(sequence)


@contextlib.asynccontextmanager
async def serving(
    folder: pathlib.Path, desired: PoolDesired, **settings: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """Serve a document's models, all of which can be loaded."""
    async with served(folder, None, **settings) as (runtime, client):
        client.timeout = httpx.Timeout(START)
        await runtime.models.apply(desired)
        await eventually(lambda: all_serve(runtime), START)
        yield runtime, client


def all_serve(runtime: Runtime) -> bool:
    return all(m.reason is Reason.SERVING for m in runtime.models.report().models)


def reported(runtime: Runtime, name: str) -> ReportedModel:
    return next(m for m in runtime.models.report().models if m.name == name)


def worker_of(runtime: Runtime, name: str) -> int:
    """Return the process id of a model's worker."""
    assert isinstance(runtime.models, ModelPool)
    live = runtime.models._served[name]._generations.active
    assert live is not None
    return live.engine.pid
