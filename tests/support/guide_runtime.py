"""A runtime on a real socket that serves the guide, the example model that has something to say."""

import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.models.pool import ModelPool

GUIDE = pathlib.Path(__file__).parents[2] / "examples" / "models" / "guide-v1.gguf"
PATIENCE = 120.0


def document() -> PoolDesired:
    model = DesiredModel(
        name="guide",
        task=Task.CHAT,
        ordinals=(0,),
        target=DesiredRevision(
            uri="file:guide-v1.gguf", engine=EngineSettings(context_length=2048)
        ),
    )
    settings = RuntimeSettings(file_roots=(str(GUIDE.parent),))
    return PoolDesired(
        namespace="default", pool="default", settings=settings, models=(model,)
    ).sealed(1)


@contextlib.asynccontextmanager
async def guide(
    folder: pathlib.Path, **settings: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with served(folder, None, **settings) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document())
        await eventually(lambda: reported(runtime).reason is Reason.SERVING, PATIENCE)
        yield runtime, client


def reported(runtime: Runtime) -> ReportedModel:
    (model,) = runtime.models.report().models
    return model


def ledger(runtime: Runtime) -> int:
    """Return what the ledger has of models: the spare engine comes and goes."""
    assert isinstance(runtime.models, ModelPool)
    return runtime.models.report().devices[0].ledger_bytes - runtime.models._spare.bytes
