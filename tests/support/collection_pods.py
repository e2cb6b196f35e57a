"""Pods with a collection of notes, as tests of searches and of writes need them."""

import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.support.encoder_models import Encoder, write_encoder
from tests.support.onnx_models import write_onnx
from tests.support.runtimes import served
from tests.support.stores import eventually
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.app import Runtime

PATIENCE = 120.0
ENCODER, RANKER = Encoder(), Encoder(has_head=True)
C = "/v1/collections/notes"
WIDTH = ENCODER.width


def write_models(folder: pathlib.Path) -> pathlib.Path:
    """Write an encoder, a narrower one, a reranker, and an encoder with BGE-M3's heads."""
    write_encoder(folder / "encoder.gguf", ENCODER)
    write_encoder(folder / "narrow.gguf", Encoder(width=32))
    write_encoder(folder / "ranker.gguf", RANKER)
    write_onnx(folder / "heads", ENCODER, heads=True)
    return folder


def model(name: str, file: str, task: Task = Task.EMBEDDING) -> DesiredModel:
    return DesiredModel(
        name=name,
        task=task,
        ordinals=(0,),
        serving=ServingLimits(request_seconds=60),
        target=DesiredRevision(uri=f"file:{file}", engine=EngineSettings(threads=1), task=task),
    )


def notes(**spec: Any) -> DesiredCollection:
    given = {"pool": "default", "embedding": {"modelDeployment": "encoder"}, **spec}
    return DesiredCollection(name="notes", spec=VectorCollectionSpec.model_validate(given))


def document(
    files: pathlib.Path, models: tuple[DesiredModel, ...], *collections: DesiredCollection
) -> PoolDesired:
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(files),)),
        models=models,
        collections=collections,
    )


MODELS = (model("encoder", "encoder.gguf"),)
HEADS = (model("encoder", "heads"),)
"""A model like BGE-M3, which also weighs tokens and gives each a vector."""


@contextlib.asynccontextmanager
async def pod(
    folder: pathlib.Path, desired: PoolDesired, **settings: Any
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with served(folder, None, **settings) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.documents.accept(desired.sealed(1))
        yield runtime, client


async def ready(client: httpx.AsyncClient, name: str = "notes") -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_ready() -> bool:
        found.update((await client.get(f"/v1/collections/{name}")).json())
        return bool(found["ready"])

    await eventually(is_ready, PATIENCE, every=0.1)
    return found


async def posted(client: httpx.AsyncClient, path: str, body: Any, status: int = 200) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def count(client: httpx.AsyncClient) -> int:
    """Return how many points the collection has."""
    return int((await posted(client, f"{C}/points/count", {}))["count"])


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    return str(answer.json()["error"]["message"])


def long_text(number: int) -> str:
    """A text of several chunks where they are cut as SPLIT says."""
    paragraph = f"the red fox number {number} jumped. how the tank and the water model burns. "
    return "\n\n".join(f"{paragraph} part {part}" for part in range(4))


SPLIT = {"chunking": {"splitter": "Text", "maxTokens": 64, "overlapTokens": 0}}

TEXTS = {
    1: "the red fox jumped",
    2: "how the water tank model",
    3: "blue memory of fire",
}
