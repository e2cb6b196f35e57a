"""A model that another pod holds is asked for there, and its answer comes back as it is made."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import httpx

from tests.support.runtimes import eventually, served
from tests.support.scripted_models import FakeModels, Gate, desired_model
from ullage_api.wire.pool_desired import Peer
from ullage_runtime.app import Runtime
from ullage_runtime.core.errors import ModelLoading

CHAT = "/v1/chat/completions"
HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
DEAD = "http://127.0.0.1:9"


@contextlib.asynccontextmanager
async def two_pods(
    folder: pathlib.Path, holder: FakeModels, *urls: str, **settings: object
) -> AsyncIterator[tuple[Runtime, FakeModels, httpx.AsyncClient]]:
    """Serve a holder as ordinal 1, and pod 0, which reaches it there (and nobody at `urls`)."""
    async with served(folder / "b", holder, pod_name="ullage-default-1") as (holding, _):
        urls = (*urls, holding.url)
        front = FakeModels(
            [desired_model("chat", ordinals=tuple(range(1, len(urls) + 1)))],
            peers=[Peer(ordinal=i, url=u) for i, u in enumerate(urls, 1)],
        )
        async with served(folder / "a", front, pod_name="ullage-default-0", **settings) as (
            fronting,
            client,
        ):
            yield fronting, front, client


def holding(**scripts: object) -> FakeModels:
    model = desired_model("chat", ordinals=(1,))
    return FakeModels([model], dict(scripts), ordinal=1)  # type: ignore[arg-type]


async def test_an_answer_comes_from_the_pod_that_holds_the_model(tmp_path: pathlib.Path) -> None:
    holder = holding()
    async with two_pods(tmp_path, holder) as (_, front, client):
        whole = await client.post(CHAT, json=HELLO, headers={"X-Request-Id": "one"})
        stream = await client.post(CHAT, json={**HELLO, "stream": True})
    assert whole.json()["choices"][0]["message"]["content"] == "You said: hello"
    assert whole.headers.get_list("x-request-id") == ["one"]
    assert stream.text.endswith("data: [DONE]\n\n")
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert len(holder.requests) == 2
    assert front.requests == []


async def test_parts_of_a_stream_pass_through_as_they_are_made(tmp_path: pathlib.Path) -> None:
    gate = Gate()
    async with (
        two_pods(tmp_path, holding(chat=gate)) as (_, _, client),
        client.stream("POST", CHAT, json={**HELLO, "stream": True}) as answer,
    ):
        lines = answer.aiter_lines()
        while "One" not in await anext(lines):
            pass
        assert not gate.opened.is_set()
        gate.opened.set()
        assert "data: [DONE]" in [line async for line in lines]


async def test_the_next_holder_is_tried_when_one_cannot_be_reached(tmp_path: pathlib.Path) -> None:
    async with two_pods(tmp_path, holding(), DEAD) as (_, _, client):
        for _ in range(4):
            assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_a_holders_error_comes_back_as_it_is(tmp_path: pathlib.Path) -> None:
    holder = holding()
    holder.refusals["chat"] = ModelLoading("still loading", retry_after=9)
    async with two_pods(tmp_path, holder) as (_, _, client):
        response = await client.post(CHAT, json=HELLO)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "9"
    assert response.json()["error"]["code"] == "model_loading"


async def test_when_no_holder_can_be_reached_the_client_is_told(tmp_path: pathlib.Path) -> None:
    front = FakeModels([desired_model("chat", ordinals=(1,))], peers=[Peer(ordinal=1, url=DEAD)])
    async with served(tmp_path, front) as (_, client):
        response = await client.post(CHAT, json=HELLO)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "peer_unavailable"
    assert "retry-after" in response.headers


async def test_two_pods_that_each_think_the_other_holds_it_do_not_pass_it_around(
    tmp_path: pathlib.Path,
) -> None:
    mistaken = FakeModels([desired_model("chat", ordinals=(0,))], ordinal=1)
    async with two_pods(tmp_path, mistaken) as (_, _, client):
        response = await client.post(CHAT, json=HELLO)
    assert response.status_code == 503
    assert "being rearranged" in response.json()["error"]["message"]


async def test_a_model_that_no_pod_holds_is_unavailable(tmp_path: pathlib.Path) -> None:
    front = FakeModels([desired_model("chat", ordinals=())])
    async with served(tmp_path, front) as (_, client):
        response = await client.post(CHAT, json=HELLO)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_unavailable"


async def test_a_client_that_leaves_ends_its_generation_at_the_holder(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()
    holder = holding(chat=gate)
    async with two_pods(tmp_path, holder) as (_, _, client):
        asking = asyncio.create_task(client.post(CHAT, json=HELLO))
        await asyncio.wait_for(gate.began.wait(), 10)
        asking.cancel()
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        await eventually(lambda: holder.leases == 0)


async def test_an_ending_pod_says_so_on_the_streams_it_passes_on(tmp_path: pathlib.Path) -> None:
    gate = Gate()
    async with two_pods(tmp_path, holding(chat=gate)) as (fronting, _, client):
        async with client.stream("POST", CHAT, json={**HELLO, "stream": True}) as answer:
            lines = answer.aiter_lines()
            while "One" not in await anext(lines):
                pass
            ending = asyncio.create_task(fronting.shut_down())
            rest = [line async for line in lines]
        await ending
    assert any("shutting_down" in line for line in rest)
