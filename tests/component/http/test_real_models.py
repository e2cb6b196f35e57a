"""The whole way, from a socket to llama.cpp and back, with real (if senseless) weights."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.runtimes import eventually, served
from tests.support.workers import workers
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, Peer, PoolDesired
from ullage_runtime.app import Runtime
from ullage_runtime.http.auth import entry_line

CHAT = "/v1/chat/completions"
HELLO = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 8,
    "temperature": 0,
}
PATIENCE = 60.0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    # Wide enough that a long answer takes a while, which a test can interrupt.
    shape = Shape(context=4096, width=256, layers=8, feed_forward=512)
    return write_model(tmp_path_factory.mktemp("weights") / "tiny.gguf", shape)


def document(
    weights: pathlib.Path, sequence: int = 1, ordinal: int = 0, *peers: Peer, **fields: object
) -> PoolDesired:
    model = DesiredModel(
        name="tiny",
        task=Task.CHAT,
        ordinals=(ordinal,),
        target=DesiredRevision(
            uri="file:tiny.gguf", engine=EngineSettings(context_length=4096, threads=1)
        ),
        serving=ServingLimits(request_seconds=120),
    ).model_copy(update=fields)
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(weights.parent),)),
        models=(model,),
        peers=peers,
    ).sealed(sequence)


async def serving(runtime: Runtime) -> None:
    def serves() -> bool:
        (model,) = runtime.models.report().models
        return model.reason is Reason.SERVING and model.active is not None

    await eventually(serves, PATIENCE)


@contextlib.asynccontextmanager
async def one_pod(
    folder: pathlib.Path, weights: pathlib.Path
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with served(folder, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(weights))
        await serving(runtime)
        yield runtime, client


async def test_a_question_that_comes_before_the_model_is_held_and_answered(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(weights))
        answer = await client.post(CHAT, json=HELLO)
        assert answer.status_code == 200, answer.text
        (model,) = runtime.models.report().models
        assert model.active is not None
        assert answer.json()["system_fingerprint"] == model.active.revision


async def test_a_prompt_is_cached_for_its_own_key_and_for_no_other(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for tenant in ("a", "b"):
        (keys / tenant).write_text(entry_line(f"key-{tenant}"))
    long = {**HELLO, "messages": [{"role": "user", "content": "much the same " * 40}]}
    async with served(tmp_path, None, api_keys_dir=keys) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await runtime.models.apply(document(weights))
        await serving(runtime)

        async def cached(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            answer = await client.post(CHAT, json=long, headers=headers)
            assert answer.status_code == 200, answer.text
            details = answer.json()["usage"]["prompt_tokens_details"]
            return int(details["cached_tokens"])

        assert await cached("key-a") == 0
        assert await cached("key-a") > 100
        assert await cached("key-b") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_engine(
    tmp_path: pathlib.Path, weights: pathlib.Path, *, stream: bool
) -> None:
    async with one_pod(tmp_path, weights) as (runtime, client):

        def running() -> int:
            return runtime.models.report().models[0].requests_running

        long = {**HELLO, "max_tokens": 4000, "stream": stream}
        asking = asyncio.create_task(client.post(CHAT, json=long))
        await eventually(lambda: running() == 1, PATIENCE)
        asking.cancel()
        await eventually(lambda: running() == 0, PATIENCE)
        async with asyncio.timeout(20):
            assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_a_model_held_elsewhere_is_answered_by_the_pod_that_holds_it(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    async with (
        served(tmp_path / "b", None, pod_name="ullage-default-1") as (holder, _),
        served(tmp_path / "a", None, pod_name="ullage-default-0") as (front, client),
    ):
        client.timeout = httpx.Timeout(PATIENCE)
        wanted = document(weights, 1, 1, Peer(ordinal=1, url=holder.url))
        await holder.models.apply(wanted)
        await front.models.apply(wanted)
        await serving(holder)
        whole = await client.post(CHAT, json=HELLO)
        stream = await client.post(CHAT, json={**HELLO, "stream": True})
        assert whole.status_code == 200, whole.text
        assert stream.text.endswith("data: [DONE]\n\n")
        assert front.models.report().models[0].active is None

        long = asyncio.create_task(client.post(CHAT, json={**HELLO, "max_tokens": 4000}))
        held = holder.models.report
        await eventually(lambda: held().models[0].requests_running == 1, PATIENCE)
        long.cancel()
        await eventually(lambda: held().models[0].requests_running == 0, PATIENCE)


async def test_a_killed_engine_breaks_its_stream_off_and_the_next_request_succeeds(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    async with one_pod(tmp_path, weights) as (_, client):
        long = {**HELLO, "max_tokens": 4000, "stream": True}
        async with client.stream("POST", CHAT, json=long) as answer:
            lines = answer.aiter_lines()
            while "content" not in await anext(lines):
                pass
            for worker in workers():
                worker.kill()
            rest = [line async for line in lines]
        assert any('"code":"engine_failed"' in line for line in rest)
        assert not any("[DONE]" in line for line in rest)
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_a_suspended_model_says_so_and_comes_back(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    async with one_pod(tmp_path, weights) as (runtime, client):
        await runtime.models.apply(document(weights, 2, suspended=True, ordinals=()))
        refused = await client.post(CHAT, json=HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_suspended"
        await runtime.models.apply(document(weights, 3))
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_an_unusable_model_is_unavailable_with_the_reason(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        wanted = document(tmp_path / "x", target=DesiredRevision(uri="file:bad.gguf"))
        await runtime.models.apply(wanted)
        refused = await client.post(CHAT, json=HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_unavailable"
        assert (await client.get("/readyz")).status_code == 200


async def test_a_prompt_longer_than_the_context_is_a_bad_request_even_for_a_stream(
    tmp_path: pathlib.Path, weights: pathlib.Path
) -> None:
    async with one_pod(tmp_path, weights) as (_, client):
        long = {**HELLO, "messages": [{"role": "user", "content": "x" * 9000}], "stream": True}
        refused = await client.post(CHAT, json=long)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["context_length"] == 4096
        assert error["prompt_tokens"] > 9000
        assert str(error["prompt_tokens"]) in error["message"]
        assert "4096 tokens" in error["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_fills_the_context_ends_with_length(
    tmp_path: pathlib.Path, weights: pathlib.Path, *, stream: bool
) -> None:
    async with served(tmp_path, None) as (runtime, client):
        client.timeout = httpx.Timeout(PATIENCE)
        small = DesiredRevision(uri="file:tiny.gguf", engine=EngineSettings(context_length=256))
        await runtime.models.apply(document(weights, target=small))
        await serving(runtime)
        endless = {"model": "tiny", "messages": HELLO["messages"], "temperature": 0}
        if stream:
            endless |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post(CHAT, json=endless)
        assert answer.status_code == 200
        if not stream:
            whole = answer.json()
            finish, usage = whole["choices"][0]["finish_reason"], whole["usage"]
        else:
            *events, done = [line for line in answer.text.split("\n\n") if line]
            assert done == "data: [DONE]"
            told = [json.loads(event.removeprefix("data: ")) for event in events]
            finish, usage = told[-2]["choices"][0]["finish_reason"], told[-1]["usage"]
        assert finish == "length"
        assert usage["total_tokens"] == 256
