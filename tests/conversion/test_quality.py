"""Searches find what they should, with a real model: docstrings by their summary lines.

Through a pod's API: each body is one point, embedded without its end where it is longer than the
model reads, and is looked for in each mode.
"""

import asyncio
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.conversion.conftest import Converted
from tests.support import docstrings
from tests.support.judging import DEPTH, Scores, judged
from tests.support.runtimes import served
from tests.support.stores import eventually
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)

C = "/v1/collections/docstrings"
PATIENCE = 600.0
BATCH = 100
ASKED_AT_ONCE = 8
LEAST = {"dense": 0.49, "words": 0.50, "RRF": 0.54, "DBSF": 0.56, "words, reranked": 0.52}
"""nDCG@10 of each way to search."""
RERANKED = "words, reranked"
LOOKED_AT = 50
"""Findings by words that are ranked again by meaning."""
WAYS: dict[str, dict[str, Any]] = {
    "dense": {"mode": "Dense"},
    "words": {"mode": "Sparse"},
    "RRF": {"mode": "Hybrid", "fusion": {"type": "RRF"}},
    "DBSF": {"mode": "Hybrid", "fusion": {"type": "DBSF"}},
}


def desired(folder: pathlib.Path) -> PoolDesired:
    target = DesiredRevision(
        uri=f"file:{folder.name}", engine=EngineSettings(threads=2), task=Task.EMBEDDING
    )
    spec = {"pool": "default", "embedding": {"modelDeployment": "minilm"}}
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(folder.parent),)),
        models=(DesiredModel(name="minilm", task=Task.EMBEDDING, ordinals=(0,), target=target),),
        collections=(
            DesiredCollection(name="docstrings", spec=VectorCollectionSpec.model_validate(spec)),
        ),
    )


@pytest.fixture
async def client(tmp_path: pathlib.Path, converted: Converted) -> AsyncIterator[httpx.AsyncClient]:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.documents.accept(desired(converted("int8").folder).sealed(1))

        async def is_ready() -> bool:
            return bool((await client.get(C)).json()["ready"])

        await eventually(is_ready, PATIENCE, every=0.1)
        yield client


async def written(client: httpx.AsyncClient, items: list[docstrings.Item]) -> None:
    for first in range(0, len(items), BATCH):
        bodies = [item.body for item in items[first : first + BATCH]]
        asked_for = {"model": "minilm", "input": bodies, "truncate": True}
        answer = await client.post("/v1/embeddings", json=asked_for)
        assert answer.status_code == httpx.codes.OK, answer.text
        points = [
            {"id": first + each["index"], "text": body, "vector": each["embedding"]}
            for body, each in zip(bodies, answer.json()["data"], strict=True)
        ]
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert answer.status_code == httpx.codes.OK, answer.text


async def asked(
    client: httpx.AsyncClient, query: str, way: dict[str, Any], limit: int = DEPTH
) -> list[int]:
    body = {"query": query, "limit": limit, **way}
    answer = await client.post(f"{C}/search", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    found = answer.json()
    assert found["degraded"] == []
    return [int(hit["id"]) for hit in found["results"]]


async def reranked(
    client: httpx.AsyncClient, query: str, items: list[docstrings.Item]
) -> list[int]:
    """Return what is found by words, ordered by meaning: no cross-encoder is packaged anywhere."""
    found = await asked(client, query, WAYS["words"], LOOKED_AT)
    bodies = [items[number].body for number in found]
    body = {"model": "minilm", "query": query, "documents": bodies, "truncate": True}
    answer = await client.post("/v1/rerank", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    return [found[each["index"]] for each in answer.json()["results"][:DEPTH]]


async def test_docstrings_are_found_by_meaning_by_words_and_better_by_both(
    client: httpx.AsyncClient,
) -> None:
    items = docstrings.items()
    await written(client, items)
    questions = docstrings.questions(items)
    scores: dict[str, Scores] = {}

    async def found(name: str, query: str) -> list[int]:
        if name == RERANKED:
            return await reranked(client, query, items)
        return await asked(client, query, WAYS[name])

    for name in LEAST:
        rankings: dict[int, list[int]] = {}
        for first in range(0, len(questions), ASKED_AT_ONCE):
            some = questions[first : first + ASKED_AT_ONCE]
            answers = await asyncio.gather(*(found(name, items[n].query) for n in some))
            rankings.update(zip(some, answers, strict=True))
        scores[name] = judged(rankings)
    assert all(scores[name].ndcg >= least for name, least in LEAST.items()), scores
