"""Sessions: searches that build on what was asked before, pages, memory, and forgetting."""

import contextlib
import os
import pathlib
from array import array
from typing import Any

import httpx
import pytest

from tests.support import follow_ups
from tests.support.collection_pods import (
    MODELS,
    C,
    document,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.guide_runtime import GUIDE
from tests.support.stores import eventually
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.core.pooled import PoolingType

S = "/v1/sessions"


async def write(client: httpx.AsyncClient, texts: dict[int, str]) -> None:
    points = [{"id": n, "text": text} for n, text in texts.items()]
    answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
    assert answer.status_code == 200, answer.text


async def begun(client: httpx.AsyncClient, **body: Any) -> str:
    return str((await posted(client, S, {"collection": "notes", **body}, 201))["id"])


async def ids(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[int]:
    return [hit["id"] for hit in (await posted(client, path, body))["results"]]


async def test_follow_up_questions_find_more_in_a_session_than_without(
    tmp_path: pathlib.Path,
) -> None:
    embedder = DesiredModel(
        name="encoder",
        task=Task.EMBEDDING,
        ordinals=(0,),
        target=DesiredRevision(
            uri=f"file:{GUIDE.name}",
            engine=EngineSettings(threads=1, context_length=512, pooling=PoolingType.MEAN),
            task=Task.EMBEDDING,
        ),
    )
    async with pod(tmp_path, document(GUIDE.parent, (embedder,), notes())) as (_, client):
        await ready(client)
        await write(client, follow_ups.texts())
        stateless, in_session = [], []
        for conversation in follow_ups.conversations():
            session = await begun(client)
            for turn, asked in enumerate(conversation):
                body = {"query": asked.question, "limit": 10}
                with_history = await ids(client, f"{S}/{session}/search", body)
                if turn:
                    in_session.append(reciprocal_rank(with_history, asked.answer))
                    alone = await ids(client, f"{C}/search", body)
                    stateless.append(reciprocal_rank(alone, asked.answer))
        assert len(in_session) == 96
        mean, without = (sum(each) / len(each) for each in (in_session, stateless))
        assert without < 0.3, "the questions make no sense by themselves"
        assert mean > 0.6


def reciprocal_rank(found: list[int], answer: int) -> float:
    return 1 / (found.index(answer) + 1) if answer in found else 0.0


TEXTS = {n: f"the red fox number {n}" for n in range(1, 8)}


async def test_pages_of_a_session_repeat_nothing_and_what_was_shown_can_come_last(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        await write(client, TEXTS)
        path = f"{S}/{await begun(client)}/search"
        body = {"query": "red fox", "limit": 3, "explain": True}
        first = await ids(client, path, body)
        # What is written meanwhile changes no page.
        await write(client, dict.fromkeys(range(20, 30), "red fox red fox"))
        second = await ids(client, path, {**body, "offset": 3})
        third = await ids(client, path, {**body, "offset": 6})
        assert sorted(first + second + third) == sorted(TEXTS)
        turns = (await client.get(path.replace("search", "turns"))).json()["turns"]
        assert turns == [{"role": "user", "text": "red fox", "score": None}]

        again = await ids(client, path, {**body, "limit": 17, "demote_shown": True})
        assert sorted(again[:10]) == list(range(20, 30)), "those that nobody has seen yet"
        assert sorted(again[10:]) == sorted(TEXTS)


async def test_a_session_remembers_turns_and_tells_those_that_are_like_a_question(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        session = f"{S}/{await begun(client)}"
        assert (await posted(client, f"{session}/recall", {"query": "a"}))["turns"] == []
        said = [("user", "how the water tank"), ("assistant", "blue fire"), ("user", "red fox")]
        turns = [{"role": role, "text": text} for role, text in said]
        found = await posted(client, f"{session}/turns", {"turns": turns})
        assert (found["turns"], found["collection"]) == (3, "notes")
        assert found["expires"] > found["created"]
        likest = await posted(client, f"{session}/recall", {"query": "blue fire", "limit": 1})
        assert [each["text"] for each in likest["turns"]] == ["blue fire"]
        assert likest["turns"][0]["score"] == pytest.approx(1.0, abs=1e-4)


async def on_disk(client: httpx.AsyncClient) -> int:
    """Return how many vectors the cache of them has written down."""
    stats = (await client.get("/cache/stats")).json()["caches"]
    return int(next(each for each in stats if each["name"] == "embeddings")["disk"]["entries"])


async def made_of(client: httpx.AsyncClient, text: str) -> bytes:
    """Return what a model makes of a text, as a file would have it."""
    body = {"model": "encoder", "input": text, "input_type": "document"}
    (one,) = (await posted(client, "/v1/embeddings", body))["data"]
    return array("f", one["embedding"]).tobytes()


async def test_a_deleted_session_leaves_no_trace_on_the_disk(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    secret = "the unjumped memory of model 4711"
    kept = "the fox that stays"

    def holds(what: str | bytes) -> bool:
        wanted = what.encode() if isinstance(what, str) else what
        listed = os.walk(tmp_path / "state")  # passes over folders that go meanwhile
        for path in (pathlib.Path(folder, name) for folder, _, names in listed for name in names):
            with contextlib.suppress(FileNotFoundError):
                if wanted in path.read_bytes():
                    return True
        return False

    cached = {"embeddings_disk_cache_max_bytes": 1 << 20}
    async with pod(tmp_path, document(files, MODELS, notes()), **cached) as (runtime, client):
        await ready(client)
        await write(client, TEXTS)
        before = await on_disk(client)
        assert before == len(TEXTS), "the vectors of what is in the collection"
        session, other = await begun(client), await begun(client)
        for name, text in ((session, secret), (other, kept)):
            turns = {"turns": [{"role": "user", "text": text}] * 200}
            for part in (turns["turns"][:100], turns["turns"][100:]):
                await posted(client, f"{S}/{name}/turns", {"turns": part})
            await posted(client, f"{S}/{name}/search", {"query": text})
            await posted(client, f"{S}/{name}/recall", {"query": f"{text}?"})
        assert holds(secret)
        assert await on_disk(client) == before, "no vector of what was said"
        vector = await made_of(client, secret)
        assert not holds(vector)
        answer = await client.delete(f"{S}/{session}")
        assert answer.json() == {"id": session, "object": "session", "deleted": True}
        assert not holds(secret)
        assert not holds(session)
        assert holds(kept)
        refused(await client.get(f"{S}/{session}"), 404, "session_not_found")
        answer = await client.post(f"{S}/{session}/search", json={"query": "a"})
        refused(answer, 404, "session_not_found")

        # One that expires goes by itself, and those of a collection that is dropped with it.
        short = await begun(client, ttl_seconds=1)

        async def has_expired() -> bool:
            await runtime.services.sessions.forget()
            return not holds(short)

        await eventually(has_expired)
        dropped = notes().model_copy(update={"dropped": True})
        await runtime.documents.accept(document(files, MODELS, dropped).sealed(2))

        async def is_gone() -> bool:
            return not holds(kept)

        await eventually(is_gone)


async def test_what_a_session_cannot_do_is_refused(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        answer = await client.post(S, json={"collection": "other"})
        refused(answer, 404, "collection_not_found")
        wrong: list[Any] = [{}, {"collection": "notes", "ttl_seconds": 0}, {"what": 1}]
        for body in wrong:
            refused(await client.post(S, json=body), 400, "invalid_request_error")
        session = await begun(client)
        requests: list[tuple[str, Any]] = [
            ("turns", {"turns": []}),
            ("turns", {"turns": [{"role": "system", "text": "a"}]}),
            ("search", {"query": "a", "limit": 0}),
            ("search", {"query": "a", "filter": {"must": [{"what": 1}]}}),
            ("recall", {"query": ""}),
        ]
        for path, body in requests:
            answer = await client.post(f"{S}/{session}/{path}", json=body)
            refused(answer, 400, "invalid_request_error")
