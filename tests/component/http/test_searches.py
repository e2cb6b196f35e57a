"""Searches of a collection over HTTP: looked at again, in batches, and with parts away."""

import pathlib
from typing import Any

import pytest

from tests.support.collection_pods import (
    MODELS,
    C,
    document,
    model,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.encoder_models import Encoder, score, write_encoder
from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.vectors import sigmoid

ENCODER, RANKER = Encoder(), Encoder(has_head=True)
COLOURS = {
    1: "the red fox jumped",
    2: "the red water tank",
    3: "how the red model burned",
    4: "blue memory of fire",
    5: "red red fox",
}
RANKED: dict[str, Any] = {"rerank": {"modelDeployment": "ranker", "min": 3, "max": 4}}
BOTH = (*MODELS, model("ranker", "ranker", Task.RERANK))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("files")
    write_encoder(folder / "encoder.gguf", ENCODER)
    write_encoder(folder / "ranker.gguf", RANKER)
    return folder


async def write(client: Any, **payload: Any) -> None:
    points = [{"id": n, "text": text, "payload": payload} for n, text in COLOURS.items()]
    answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
    assert answer.status_code == 200, answer.text


async def test_a_cross_encoder_orders_findings_anew_and_without_it_they_are_answered_as_found(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    query = "red fire fox"
    async with pod(tmp_path, document(files, BOTH, notes(**RANKED))) as (runtime, client):
        await ready(client)
        await write(client)
        plain = await posted(client, f"{C}/search", {"query": query, "rerank": False, "limit": 5})
        assert "rerank" not in plain["seconds"]
        assert len(plain["results"]) == 5

        body = {"query": query, "limit": 2, "explain": True}
        found = await posted(client, f"{C}/search", body)
        # It looks at four findings, as rerank.max says.
        looked_at = [hit["id"] for hit in plain["results"][:4]]
        scores = {n: sigmoid(score(RANKER, query, COLOURS[n])) for n in looked_at}
        expected = sorted(looked_at, key=lambda n: -scores[n])[:2]
        assert [hit["id"] for hit in found["results"]] == expected
        for hit in found["results"]:
            assert hit["score"] == pytest.approx(scores[hit["id"]], abs=1e-3)
            assert hit["explain"]["fused"]["rank"] == looked_at.index(hit["id"]) + 1
        assert found["degraded"] == []
        assert found["seconds"]["rerank"] > 0

        # What it has not looked at follows as it was found.
        whole = await posted(client, f"{C}/search", {"query": query, "limit": 1, "offset": 4})
        assert [hit["id"] for hit in whole["results"]] == [plain["results"][4]["id"]]

        alone = document(files, MODELS, notes(**RANKED))
        await runtime.documents.accept(alone.sealed(2))
        found = await posted(client, f"{C}/search", {"query": query, "limit": 5})
        assert found["degraded"] == ["rerank"]
        assert [h["id"] for h in found["results"]] == [h["id"] for h in plain["results"]]


async def test_a_rerank_that_cannot_be_is_refused(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, BOTH, notes())) as (runtime, client):
        await ready(client)
        answer = await client.post(f"{C}/search", json={"query": "a", "rerank": True})
        assert "has no reranker" in refused(answer, 400, "invalid_request_error")
        # It acts at once.
        await runtime.documents.accept(document(files, BOTH, notes(**RANKED)).sealed(2))
        body = {"vector": [1.0] * 64, "mode": "Dense", "rerank": True}
        answer = await client.post(f"{C}/search", json=body)
        assert "rerank needs a query" in refused(answer, 400, "invalid_request_error")
        body = {"vector": [1.0] * 64, "mode": "Dense"}
        assert (await posted(client, f"{C}/search", body))["degraded"] == []
