"""Findings looked at again by the vectors of their tokens, as a model like BGE-M3 gives them."""

import pathlib
import re
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.collection_pods import (
    HEADS,
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
from tests.support.stores import eventually
from ullage_api.kinds.model_deployment import Task

TEXTS = {
    1: "the red fox jumped",
    2: "the red water tank",
    3: "how the red model burned",
    4: "blue memory of fire",
    5: "red red fox",
}
QUERY = "red fire fox"
COLBERT: dict[str, Any] = {"multivector": "ColBERT"}
BOTH = {**COLBERT, "rerank": {"modelDeployment": "ranker"}}
RANKER = model("ranker", "ranker.gguf", Task.RERANK)


async def write(client: httpx.AsyncClient) -> None:
    points = [{"id": n, "text": text} for n, text in TEXTS.items()]
    answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
    assert answer.status_code == 200, answer.text


async def tokens(client: httpx.AsyncClient, text: str, kind: str) -> np.ndarray:
    body = {"model": "encoder", "input": text, "embedding_type": "colbert", "input_type": kind}
    answer = await posted(client, "/v1/embeddings", body)
    return np.array(answer["data"][0]["embedding"])


async def steps(client: httpx.AsyncClient) -> int:
    """How often the model has computed a batch."""
    metrics = (await client.get("/metrics")).text
    found = re.search(r'^ullage_engine_steps_total\{model="encoder"\} (\S+)', metrics, re.MULTILINE)
    assert found is not None
    return int(float(found.group(1)))


async def scores(client: httpx.AsyncClient) -> dict[int, float]:
    """What each text scores by Khattab and Zaharia's formula."""
    question = await tokens(client, QUERY, "query")
    texts = {n: await tokens(client, text, "document") for n, text in TEXTS.items()}
    return {n: float((question @ each.T).max(axis=1).mean()) for n, each in texts.items()}


async def test_findings_are_ordered_by_their_tokens_where_there_is_no_reranker(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes(**COLBERT, sparse="Model"))) as (
        _,
        client,
    ):
        assert (await ready(client))["message"] == ""
        await write(client)
        stored = (await client.get(f"{C}/points/4")).json()["colbert"]
        expected = await tokens(client, TEXTS[4], "document")
        assert np.array(stored) == pytest.approx(expected, abs=1e-3), "halves are kept"

        of_each = await scores(client)
        found = await posted(client, f"{C}/search", {"query": QUERY, "explain": True})
        assert found["ranked_by"] == "ColBERT"
        assert found["degraded"] == []
        order = [hit["id"] for hit in found["results"]]
        assert order == sorted(TEXTS, key=lambda n: -of_each[n])
        for hit in found["results"]:
            assert hit["score"] == pytest.approx(of_each[hit["id"]], abs=2e-3)
            assert {"fused", "dense"} <= set(hit["explain"])

        plain = await posted(client, f"{C}/search", {"query": QUERY, "rerank": False})
        assert "ranked_by" not in plain
        assert "rerank" not in plain["seconds"]

        # One's own vector says nothing of tokens: the question does.
        body: dict[str, Any] = {"query": QUERY, "vector": [1.0] * 64, "mode": "Dense"}
        assert (await posted(client, f"{C}/search", body))["ranked_by"] == "ColBERT"
        body = {"vector": [1.0] * 64, "mode": "Dense"}
        assert "ranked_by" not in await posted(client, f"{C}/search", body)

        # A point without a text has no tokens and comes last.
        bare = {"points": [{"id": 9, "vector": [1.0] * 64}]}
        await client.put(f"{C}/points", params={"wait": True}, json=bare)
        found = await posted(client, f"{C}/search", {"query": QUERY, "mode": "Dense"})
        assert [hit["id"] for hit in found["results"]][-1] == 9

        # It changes its payload and keeps its tokens.
        change = {"ids": [4], "payload": {"seen": True}}
        answer = await client.post(f"{C}/points/payload", params={"wait": True}, json=change)
        assert answer.status_code == 200, answer.text
        again = (await client.get(f"{C}/points/4")).json()
        assert again["payload"]["seen"]
        assert again["colbert"] == stored


async def test_tokens_stand_in_for_a_reranker_that_is_away_or_late(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    models = (*HEADS, RANKER)
    async with pod(tmp_path, document(files, models, notes(**BOTH))) as (runtime, client):
        await ready(client)
        await write(client)
        of_each = await scores(client)
        found = await posted(client, f"{C}/search", {"query": QUERY})
        assert found["ranked_by"] == "CrossEncoder"
        assert found["degraded"] == []

        runtime.services.collections.searcher("notes").rerank_seconds = 0
        late = await posted(client, f"{C}/search", {"query": QUERY, "limit": 4})
        assert late["degraded"] == ["rerank"]
        assert late["ranked_by"] == "ColBERT"

        await runtime.documents.accept(document(files, HEADS, notes(**BOTH)).sealed(2))
        away = await posted(client, f"{C}/search", {"query": QUERY, "limit": 5})
        assert away["degraded"] == ["rerank"]
        assert away["ranked_by"] == "ColBERT"
        order = [hit["id"] for hit in away["results"]]
        assert order == sorted(TEXTS, key=lambda n: -of_each[n])
        assert [hit["id"] for hit in late["results"]] == order[:4]

        # Without the model that gives tokens, findings are as words found them.
        suspended = HEADS[0].model_copy(update={"suspended": True, "ordinals": ()})
        await runtime.documents.accept(document(files, (suspended,), notes(**BOTH)).sealed(3))
        bare = await posted(client, f"{C}/search", {"query": QUERY, "limit": 3})
        assert bare["degraded"] == ["dense", "rerank"]
        assert "ranked_by" not in bare


async def test_one_pass_of_the_model_gives_all_that_is_kept_of_a_text(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes(**COLBERT, sparse="Model"))) as (
        _,
        client,
    ):
        await ready(client)
        await write(client)
        for path, body in (
            (f"{C}/search", {"query": QUERY}),
            ("/hybrid_search", {"collection": "notes", "query": f"{QUERY} water"}),
        ):
            before = await steps(client)
            assert (await posted(client, path, body))["ranked_by"] == "ColBERT"

            async def has_worked(before: int = before) -> bool:
                return await steps(client) > before

            await eventually(has_worked)
            assert await steps(client) == before + 1


async def test_vectors_of_tokens_that_cannot_be_are_refused(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes(**COLBERT))) as (runtime, client):

        async def is_told() -> bool:
            return "gives no vectors of tokens" in (await client.get(C)).json()["message"]

        await eventually(is_told)
        await runtime.documents.accept(document(files, HEADS, notes()).sealed(2))
        await ready(client)
        point = {"id": 1, "text": "red", "vector": {"colbert": [[1.0] * 32]}}
        answer = await client.put(f"{C}/points", json={"points": [point]})
        assert "no vectors of tokens" in refused(answer, 400, "invalid_request_error")
        await runtime.documents.accept(document(files, HEADS, notes(**COLBERT)).sealed(3))
        message = (await client.get(C)).json()["message"]
        assert "vectors of tokens is None, wanted is ColBERT" in message


async def test_tokens_of_the_wrong_width_are_refused_with_both_numbers(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes(**COLBERT))) as (_, client):
        await ready(client)
        for rows, status, words in (
            ([[1.0] * 31], 400, "has 31 dimensions"),
            ([], 400, "has no vectors"),
        ):
            point = {"id": 1, "text": "red", "vector": {"colbert": rows}}
            answer = await client.put(f"{C}/points", json={"points": [point]})
            assert answer.status_code == status
            assert words in answer.json()["error"]["message"]
        own = {"id": 1, "text": "red", "vector": {"colbert": [[1.0] + [0.0] * 31]}}
        await client.put(f"{C}/points", params={"wait": True}, json={"points": [own]})
        assert (await client.get(f"{C}/points/1")).json()["colbert"] == [[1.0] + [0.0] * 31]
