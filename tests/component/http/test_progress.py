"""How far documents have come, told as events on real sockets."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from tests.support.collection_pods import (
    MODELS,
    SPLIT,
    C,
    document,
    long_text,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.runtimes import eventually
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.http import viewers
from ullage_runtime.http.disconnect import ClientLeft
from ullage_runtime.http.retrieval.progress import ProgressStream

PATIENCE = 60.0
EVENTS = {"accept": "text/event-stream"}
HEARTBEAT = 0.05


@pytest.fixture
async def place(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    desired = wanted(files)
    async with pod(tmp_path, desired, heartbeat_seconds=HEARTBEAT) as (runtime, client):
        await ready(client)
        yield runtime, client


def wanted(files: pathlib.Path, *, suspended: bool = False) -> PoolDesired:
    given = {"suspended": True, "ordinals": ()} if suspended else {}
    return document(files, (MODELS[0].model_copy(update=given),), notes(**SPLIT))


async def sent(client: httpx.AsyncClient, count: int) -> str:
    documents = [{"id": f"doc-{n}", "text": long_text(n)} for n in range(count)]
    operation = await posted(client, f"{C}/documents", {"documents": documents}, 202)
    return f"/v1/operations/{operation['id']}"


async def waits(runtime: Runtime, client: httpx.AsyncClient, files: pathlib.Path) -> str:
    """Send documents that stay pending, since their model is away."""
    await runtime.documents.accept(wanted(files, suspended=True).sealed(2))
    return await sent(client, 3)


async def parts(answer: httpx.Response) -> AsyncIterator[dict[str, Any] | None]:
    """Yield a stream's events, and None for each comment."""
    async with asyncio.timeout(PATIENCE):
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                yield None
            elif line:
                yield json.loads(line.removeprefix("data: "))


def moved(told: list[dict[str, Any]]) -> list[int]:
    return [each["done"] for each in told]


async def test_an_operation_is_told_as_it_comes_further_until_it_is_completed(
    place: tuple[Runtime, httpx.AsyncClient],
) -> None:
    runtime, client = place
    path = await sent(client, 150)
    async with client.stream("GET", path, headers=EVENTS) as answer:
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        told = [each async for each in parts(answer) if each is not None]
    assert len(told) > 1
    assert moved(told) == sorted(moved(told))
    assert {each["status"] for each in told[:-1]} == {"running"}
    assert told[-1] == (await client.get(path)).json()
    assert (told[-1]["status"], told[-1]["done"], told[-1]["pending"]) == ("completed", 150, 0)
    assert runtime.services.watchers.count == 0

    # What is over is told once, and whoever would rather have JSON gets it.
    async with client.stream("GET", path, headers=EVENTS) as answer:
        assert [each async for each in parts(answer)] == told[-1:]
    for accept in ("application/json", "*/*", "application/json, text/event-stream"):
        assert (await client.get(path, headers={"accept": accept})).json() == told[-1]
    unknown = await client.get("/v1/operations/none", headers=EVENTS)
    refused(unknown, 404, "operation_not_found")


async def test_comments_come_while_nothing_happens_and_then_the_rest(
    place: tuple[Runtime, httpx.AsyncClient], files: pathlib.Path
) -> None:
    runtime, client = place
    path = await waits(runtime, client, files)
    async with client.stream("GET", path, headers=EVENTS) as answer:
        events = parts(answer)
        first = await anext(events)
        assert first is not None
        assert (first["status"], first["pending"]) == ("running", 3)
        assert [await anext(events) for _ in range(3)] == [None] * 3
        await runtime.documents.accept(wanted(files).sealed(3))
        rest = [each async for each in events if each is not None]
    assert rest[-1]["status"] == "completed"
    assert rest[-1]["done"] == 3


async def test_a_client_that_leaves_ends_its_stream(
    place: tuple[Runtime, httpx.AsyncClient], files: pathlib.Path
) -> None:
    runtime, client = place
    path = await waits(runtime, client, files)
    async with client.stream("GET", path, headers=EVENTS) as answer:
        await anext(parts(answer))
        assert runtime.services.watchers.count == 1
    await eventually(lambda: runtime.services.watchers.count == 0, PATIENCE)
    assert (await client.get(path)).json()["status"] == "running"


async def test_only_so_many_are_told_at_once(
    place: tuple[Runtime, httpx.AsyncClient], files: pathlib.Path
) -> None:
    runtime, client = place
    path = await waits(runtime, client, files)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(viewers.MAX_VIEWERS):
            answer = await stack.enter_async_context(client.stream("GET", path, headers=EVENTS))
            assert answer.status_code == httpx.codes.OK
        message = refused(await client.get(path, headers=EVENTS), 429, "overloaded")
        assert f"{viewers.MAX_VIEWERS} clients" in message
        assert (await client.get(path)).json()["status"] == "running", "asking is free"
    await eventually(lambda: runtime.services.watchers.count == 0, PATIENCE)


async def test_a_stream_ends_after_a_while_and_the_next_one_goes_on(
    place: tuple[Runtime, httpx.AsyncClient], files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, client = place
    path = await waits(runtime, client, files)
    monkeypatch.setattr(viewers, "LIFE_SECONDS", 0.1)
    for _ in range(2):
        async with client.stream("GET", path, headers=EVENTS) as answer:
            told = [each async for each in parts(answer) if each is not None]
        assert [each["status"] for each in told] == ["running"]


async def test_a_client_that_reads_no_more_is_left(
    place: tuple[Runtime, httpx.AsyncClient], files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, client = place
    path = await waits(runtime, client, files)
    monkeypatch.setattr(viewers, "SEND_SECONDS", 0.1)
    name, operation = await runtime.services.collections.operation(path.rpartition("/")[2])
    ingestion, watchers = runtime.services.collections.ingestion(name), runtime.services.watchers
    stuck = asyncio.Event()
    stream = ProgressStream(ingestion, operation, watchers, heartbeat=HEARTBEAT, over=stuck)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await stuck.wait()

    async def receive() -> Message:
        await stuck.wait()
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeft):
        await stream({"type": "http"}, receive, send)
    assert watchers.count == 0


async def test_a_stream_ends_whole_as_soon_as_its_pod_takes_no_more_requests(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, wanted(files), drain_seconds=PATIENCE) as (runtime, client):
        await ready(client)
        path = await waits(runtime, client, files)
        async with client.stream("GET", path, headers=EVENTS) as answer:
            events = parts(answer)
            await anext(events)
            # A request that is still worked on holds the pod's end up.
            runtime.services.drain.entered()
            ending = asyncio.create_task(runtime.shut_down())
            assert [each async for each in events] == []
            assert not ending.done()
        await eventually(lambda: runtime.services.watchers.count == 0, PATIENCE)
        runtime.services.drain.left()
        await ending


async def test_a_stream_ends_with_its_collection_and_with_its_pod(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, wanted(files)) as (runtime, client):
        await ready(client)
        path = await waits(runtime, client, files)
        async with client.stream("GET", path, headers=EVENTS) as answer:
            events = parts(answer)
            await anext(events)
            gone = wanted(files, suspended=True).model_copy(update={"collections": ()})
            await runtime.documents.accept(gone.sealed(3))
            assert [each async for each in events] == []
        await runtime.documents.accept(wanted(files, suspended=True).sealed(4))
        await ready(client)
        async with httpx.AsyncClient(base_url=runtime.url, trust_env=False) as other:
            stream = other.stream("GET", path, headers=EVENTS)
            answer = await stream.__aenter__()
            events = parts(answer)
            await anext(events)
            ending = asyncio.create_task(runtime.shut_down())
            assert [each async for each in events] == []
            await stream.__aexit__(None, None, None)
            await ending
