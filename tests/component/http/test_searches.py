"""Searches of a collection over HTTP: looked at again, in batches, and with parts away."""

import asyncio
import math
import os
import pathlib
import signal
from dataclasses import replace
from typing import Any

import pytest

from tests.support.collection_pods import (
    HEADS,
    MODELS,
    RANKER,
    C,
    document,
    model,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.encoder_models import score
from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from tests.support.stores import eventually
from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.vectors import sigmoid

COLOURS = {
    1: "the red fox jumped",
    2: "the red water tank",
    3: "how the red model burned",
    4: "blue memory of fire",
    5: "red red fox",
}
RANKED: dict[str, Any] = {"rerank": {"modelDeployment": "ranker", "min": 3, "max": 4}}
BOTH = (*MODELS, model("ranker", "ranker.gguf", Task.RERANK))


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


async def test_a_batch_is_answered_as_its_searches_would_be(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    searches: list[dict[str, Any]] = [
        {"query": "red fox", "limit": 2, "explain": True},
        {"query": "blue fire", "mode": "Sparse"},
        {"vector": [1.0] * 64, "mode": "Dense", "limit": 1},
        {"query": "red fox", "mode": "Dense", "rerank": False},
    ]
    async with pod(tmp_path, document(files, BOTH, notes(**RANKED))) as (runtime, client):
        await ready(client)
        await write(client)
        found = await posted(client, f"{C}/search/batch", {"searches": searches})
        for search, one in zip(searches, found["results"], strict=True):
            alone = await posted(client, f"{C}/search", search)
            assert one["results"] == alone["results"]
            assert one["mode"] == alone["mode"]
        many = {"searches": searches[:1] * 33}
        refused(await client.post(f"{C}/search/batch", json=many), 400, "invalid_request_error")

        # Without the model, each does what it can.
        away = MODELS[0].model_copy(update={"suspended": True, "ordinals": ()})
        await runtime.documents.accept(document(files, (away,), notes()).sealed(2))
        found = await posted(client, f"{C}/search/batch", {"searches": searches[:3]})
        assert [one["degraded"] for one in found["results"]] == [["dense"], [], []]


async def test_what_is_like_some_points_and_unlike_others_is_recommended(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    def towards(*axes: int) -> list[float]:
        return [float(axis in axes) for axis in range(64)]

    points: list[dict[str, Any]] = [
        {"id": 1, "vector": towards(0)},
        {"id": 2, "vector": towards(1)},
        {"id": 3, "vector": towards(0, 1), "payload": {"kind": "both"}},
        {"id": 4, "vector": towards(0, 2)},
        {"id": 5, "vector": {"sparse": {"indices": [1], "values": [1.0]}}},
    ]
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        like = {"positive": [1], "negative": [2]}
        found = await posted(client, f"{C}/recommend", like)
        assert [hit["id"] for hit in found["results"]] == [4, 3], "examples are not found"
        some = {**like, "filter": {"must": [{"key": "kind", "match": {"value": "both"}}]}}
        found = await posted(client, f"{C}/recommend", some)
        assert [hit["id"] for hit in found["results"]] == [3]
        answer = await client.post(f"{C}/recommend", json={"positive": [1, 99]})
        assert "no point 99" in refused(answer, 404, "point_not_found")
        for body, says in (
            ({"positive": [5]}, "no dense vector"),
            ({"positive": []}, "positive"),
            ({"positive": [1], "limit": 0}, "limit"),
            ({"positive": [1], "negative": ["x"]}, "negative"),
            ({"positive": [1], "filter": {"must": [{"what": 1}]}}, "filter"),
        ):
            answer = await client.post(f"{C}/recommend", json=body)
            assert says in refused(answer, 400, "invalid_request_error")


async def test_the_flat_paths_mean_the_collection_of_a_name_an_operation_or_the_default(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    desired = document(files, MODELS, notes())
    async with pod(tmp_path, desired) as (runtime, client):
        await ready(client)
        named = {"collection": "notes"}
        body = {**named, "points": [{"id": n, "text": text} for n, text in COLOURS.items()]}
        written = await posted(client, "/upsert?wait=true", body)
        assert written == {"collection": "notes", "status": "applied", "version": 1, "points": 5}
        body = {"documents": [{"id": "a", "text": "water"}]}
        operation = await posted(client, f"{C}/documents?wait=true", body, 202)

        query = {"query": "blue fire"}
        for path, extra, mode in (
            ("/search", named, "Dense"),
            ("/search", {**named, "search_type": "hybrid"}, "Hybrid"),
            ("/search", {**named, "mode": "Sparse"}, "Sparse"),
            ("/hybrid_search", named, "Hybrid"),
            ("/hybrid_search", {"operation_uuid": operation["id"]}, "Hybrid"),
        ):
            found = await posted(client, path, {**query, **extra})
            assert (found["collection"], found["mode"]) == ("notes", mode)
            assert found["results"][0]["id"] == 4

        answer = await client.post("/search", json=query)
        message = refused(answer, 400, "invalid_request_error")
        assert message.endswith("as there is no default; there are: notes")
        answer = await client.post("/search", json={**query, "operation_uuid": "op-0"})
        refused(answer, 404, "operation_not_found")
        answer = await client.post("/search", json={**query, "collection": "other"})
        refused(answer, 404, "collection_not_found")
        both = {**query, **named, "search_type": "hybrid", "mode": "Dense"}
        answer = await client.post("/search", json=both)
        assert "contradict" in refused(answer, 400, "invalid_request_error")
        answer = await client.post("/upsert", json={**named, "points": [], "wait": True})
        refused(answer, 400, "invalid_request_error")

        settings = desired.settings.model_copy(update={"default_collection": "notes"})
        defaulting = desired.model_copy(update={"settings": settings})
        await runtime.documents.accept(defaulting.sealed(2))
        assert (await posted(client, "/search", query))["collection"] == "notes"


async def test_a_search_is_answered_once_until_something_is_written_and_while_the_store_is_away(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        await write(client)
        body = {"query": "blue fire", "limit": 2}
        first = await posted(client, f"{C}/search", body)
        again = await posted(client, f"{C}/search", body)
        assert (first["cached"], again["cached"]) == (False, True)
        assert again["results"] == first["results"]
        assert not (await posted(client, f"{C}/search", {**body, "limit": 3}))["cached"]
        await write(client, written="again")
        after = await posted(client, f"{C}/search", body)
        assert not after["cached"]
        assert after["results"][0]["payload"]["written"] == "again"
        stats = (await client.get("/cache/stats")).json()
        searches = next(each for each in stats["caches"] if each["name"] == "searches")
        assert searches["entries"] == 2
        lookups = {"hits": 1, "disk": 0, "shared": 0, "misses": 3}
        assert searches["models"] == [{"model": "encoder", **lookups}]

        # The store goes away, after one more write that no search has seen.
        await write(client, written="unseen")
        owner = runtime.services.collections._owner
        assert owner is not None
        await owner.close()
        stale = await posted(client, f"{C}/search", body)
        assert stale["degraded"] == ["stale"]
        assert stale["results"] == after["results"]
        for _ in range(4):
            answer = await client.post(f"{C}/search", json={"query": "other"})
            message = refused(answer, 503, "collection_unavailable")
            assert int(answer.headers["retry-after"]) > 0
        assert "left alone" in message
        metrics = (await client.get("/metrics")).text
        assert 'ullage_search_breaker_open{dependency="store",name="notes"} 1.0' in metrics


async def test_an_answer_is_kept_for_one_vector_and_for_none_that_is_almost_the_same(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        vector = [0.5] * (await client.get(C)).json()["dimensions"]
        search = {"vector": vector, "mode": "Dense"}
        other = {**search, "vector": [*vector[:-1], math.nextafter(0.5, 1.0)]}
        asked = [search, search, other, {**search, "query": "blue"}, {**search, "exact": True}]
        found = [await posted(client, f"{C}/search", each) for each in asked]
        assert [each["cached"] for each in found] == [False, True, False, False, False]


async def test_texts_are_found_by_the_models_own_weights_where_that_is_asked_for(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes(sparse="Model"))) as (runtime, client):
        described = await ready(client)
        assert described["message"] == ""
        await write(client)
        body = {"input": COLOURS[4], "model": "encoder", "embedding_type": "sparse"}
        said = await posted(client, "/v1/embeddings", body)
        weights = said["data"][0]["embedding"]
        sparse = (await client.get(f"{C}/points/4")).json()["sparse"]
        assert sparse["indices"] == weights["indices"]
        assert sparse["values"] == pytest.approx(weights["values"], rel=1e-4)
        for mode in ("Sparse", "Hybrid"):
            found = await posted(client, f"{C}/search", {"query": COLOURS[4], "mode": mode})
            assert found["results"][0]["id"] == 4
        # A vector alone is no question: its words would be missing.
        both: dict[str, Any] = {"query": COLOURS[4], "vector": [1.0] * 64, "limit": 1}
        assert (await posted(client, f"{C}/search", both))["results"]

        # BM25's vectors and the model's cannot be mixed.
        await runtime.documents.accept(document(files, HEADS, notes()).sealed(2))
        message = (await client.get(C)).json()["message"]
        assert "sparse vectors is Model, wanted is BM25" in message
        found = await posted(client, f"{C}/search", {"query": COLOURS[4], "mode": "Sparse"})
        assert found["results"][0]["id"] == 4


async def test_a_model_without_weights_of_its_own_is_told_so(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes(sparse="Model"))) as (_, client):

        async def is_told() -> bool:
            return "gives no sparse vectors" in (await client.get(C)).json()["message"]

        await eventually(is_told)


async def test_a_store_that_comes_to_a_halt_is_waited_for_once_or_twice_and_is_back_by_itself(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        await write(client)
        body = {"query": "blue fire"}
        before = await posted(client, f"{C}/search", body)
        runtime.services.collections.searcher("notes").search_seconds = 0.2
        owner = runtime.services.collections._owner
        assert owner is not None
        assert owner.pid is not None
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                answer = await client.post(f"{C}/search", json={"query": "other"})
                assert "within 0.2 s" in refused(answer, 504, "timeout")
            answer = await client.post(f"{C}/search", json={"query": "other"})
            assert "left alone" in refused(answer, 503, "collection_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            # What was asked before is still known.
            found = await posted(client, f"{C}/search", body)
            assert found["results"] == before["results"]
        finally:
            os.kill(owner.pid, signal.SIGCONT)

        async def is_back() -> bool:
            answer = await client.post(f"{C}/search", json={"query": "other"})
            return answer.status_code == 200

        await eventually(is_back)


async def test_a_reranker_that_is_late_is_not_waited_for_and_soon_not_asked(
    tmp_path: pathlib.Path,
) -> None:
    ranker = desired_model("ranker", task=Task.RERANK)
    models = FakeModels([desired_model("encoder", task=Task.EMBEDDING), ranker])
    async with served(tmp_path, models) as (runtime, client):
        await runtime.services.collections.apply([notes(**RANKED)])
        await ready(client)
        await write(client)
        body = {"query": "red", "mode": "Sparse"}
        found = await posted(client, f"{C}/search", body)
        assert found["degraded"] == []
        lengths = [len(hit["payload"]["text"]) for hit in found["results"]]
        assert lengths[:4] == sorted(lengths[:4], reverse=True), "which is what the ranker likes"

        models.queue["ranker"] = asyncio.Event()
        runtime.services.collections.searcher("notes").rerank_seconds = 0.2
        slow = [
            await posted(client, f"{C}/search", {**body, "limit": limit}) for limit in range(1, 5)
        ]
        assert [each["degraded"] for each in slow] == [["rerank"]] * 4
        assert all(each["seconds"]["rerank"] >= 0.2 for each in slow[:3])
        assert slow[3]["seconds"]["rerank"] < 0.2, "it is left alone now"
        metrics = (await client.get("/metrics")).text
        assert 'ullage_search_breaker_open{dependency="reranker",name="ranker"} 1.0' in metrics


async def test_an_answer_is_kept_for_fifteen_minutes_and_not_into_another_epoch(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        await write(client)
        now = 1000.0
        runtime.services.caches.searches._now = lambda: now

        async def is_cached(query: str = "blue fire") -> bool:
            found = await posted(client, f"{C}/search", {"query": query})
            assert found["degraded"] == []
            return bool(found["cached"])

        assert not await is_cached()
        now += 899.0
        assert await is_cached(), "which does not prolong it"
        now += 1.0
        assert not await is_cached()
        assert await is_cached()

        # Another epoch: nothing was written, and what was answered before is not given again.
        changes = runtime.services.collections.find("notes").changes
        await changes.reroute(lambda routing: replace(routing, epoch=routing.epoch + 1))
        assert (await client.get(C)).json()["epoch"] == 2
        assert not await is_cached()
        assert await is_cached()
        assert not await is_cached("red water")
        await changes.reroute(lambda routing: replace(routing, epoch=routing.epoch + 1))
        owner = runtime.services.collections._owner
        assert owner is not None
        await owner.close()
        # Not even while there is nothing else.
        answer = await client.post(f"{C}/search", json={"query": "red water"})
        refused(answer, 503, "collection_unavailable")
