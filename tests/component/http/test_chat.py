"""Chat completions over a real socket, with scripted models behind them."""

import asyncio
import json
import math
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.runtimes import eventually, served
from tests.support.scripted_models import (
    REVISION,
    FakeModels,
    Gate,
    desired_model,
    fails_after,
    says,
)
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import (
    Chunk,
    FinishReason,
    GenerateRequest,
    LikelyToken,
    Message,
    Sampling,
    TokenLogprobs,
    Usage,
)
from ullage_runtime.core.errors import EngineFailed, ModelLoading, Overloaded
from ullage_runtime.http.openai.generation import AT_ONCE

HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def events(text: str) -> list[Any]:
    return [
        line.removeprefix("data: ") if line.endswith("[DONE]") else json.loads(line[6:])
        for line in text.splitlines()
        if line.startswith("data: ")
    ]


async def test_a_whole_answer_has_openais_shape(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models) as (_, client):
        answer = (await client.post("/v1/chat/completions", json=HELLO)).json()
    assert answer.pop("id").startswith("chatcmpl-")
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "chat.completion",
        "model": "chat",
        "service_tier": "default",
        "system_fingerprint": REVISION,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "You said: hello",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_a_stream_opens_with_the_role_and_ends_with_reason_usage_and_done(
    tmp_path: pathlib.Path,
) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    async with served(tmp_path, FakeModels([desired_model("chat")])) as (_, client):
        response = await client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    role, *content, usage, done = events(response.text)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["delta"].get("content") for c in content] == [
        "You",
        " said: ",
        "hello",
    ]
    assert [c["choices"][0]["finish_reason"] for c in content] == [None, None, "stop"]
    assert all(c["usage"] is None for c in [role, *content])
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert done == "[DONE]"
    assert {c["id"] for c in [role, *content, usage]} == {role["id"]}
    assert role["system_fingerprint"] == REVISION


async def test_a_stream_that_did_not_ask_for_usage_has_none(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels([desired_model("chat")])) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert "usage" not in response.text


async def test_what_was_asked_reaches_the_engine(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat", aliases=("light",))])
    body = {
        "model": "light",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
        ],
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "seed": -1,
        "stop": ["x", "y"],
        "max_tokens": 9,
        "user": "me",
        "presence_penalty": 0.0,
        "tools": None,
        "response_format": {"type": "text"},
        "something_else": 1,
    }
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    (request,) = models.requests
    assert request.messages == (Message("system", "Be brief."), Message("user", "ab"))
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 0.5, 7)
    assert (sampling.stop, sampling.max_tokens) == (("x", "y"), 9)
    assert sampling.seed is not None
    assert 0 <= sampling.seed < 0xFFFFFFFF


async def test_what_was_not_asked_takes_our_defaults(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models) as (_, client):
        await client.post("/v1/chat/completions", json=HELLO)
        await client.post("/v1/chat/completions", json={**HELLO, "stop": None, "top_p": None})
    assert [request.sampling for request in models.requests] == [Sampling(), Sampling()]


async def test_what_was_not_asked_takes_the_models_defaults_as_they_are_now(
    tmp_path: pathlib.Path,
) -> None:
    def deployed(**defaults: object) -> DesiredModel:
        return desired_model("chat", serving=ServingLimits.model_validate({"defaults": defaults}))

    models = FakeModels([deployed(temperature="0.25", maxTokens=9)])
    prompt = {"model": "chat", "prompt": "x"}
    async with served(tmp_path, models) as (_, client):
        await client.post("/v1/chat/completions", json=HELLO)
        await client.post("/v1/completions", json=prompt)
        models.have(deployed(topP="0.5"))
        await client.post("/v1/chat/completions", json=HELLO)
        await client.post("/v1/completions", json={**prompt, "top_p": 1})
    assert [request.sampling for request in models.requests] == [
        Sampling(temperature=0.25, max_tokens=9),
        Sampling(temperature=0.25, max_tokens=9),
        Sampling(top_p=0.5),
        Sampling(max_tokens=16),
    ]


async def test_an_error_before_the_first_token_is_an_http_status_even_for_a_stream(
    tmp_path: pathlib.Path,
) -> None:
    models = FakeModels([desired_model("chat")])
    models.refusals["chat"] = ModelLoading("still loading", retry_after=3.2)
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "4"
    assert response.json()["error"]["code"] == "model_loading"


async def test_an_error_after_the_headers_is_one_error_event_and_the_end(
    tmp_path: pathlib.Path,
) -> None:
    script = fails_after("One", error=EngineFailed("the engine died", retry_after=1))
    models = FakeModels([desired_model("chat")], {"chat": script})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert response.status_code == 200
    *_, last = events(response.text)
    assert last["error"]["code"] == "engine_failed"
    assert "[DONE]" not in response.text


async def test_an_unforeseen_error_tells_the_client_nothing_but_the_request_id(
    tmp_path: pathlib.Path,
) -> None:
    async def broken(request: GenerateRequest) -> AsyncIterator[Chunk]:
        raise RuntimeError("secret details")
        yield Chunk()

    models = FakeModels([desired_model("chat")], {"chat": broken})
    async with served(tmp_path, models) as (_, client):
        response = await client.post(
            "/v1/chat/completions", json=HELLO, headers={"X-Request-Id": "abc-1"}
        )
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "abc-1"
    assert "abc-1" in response.json()["error"]["message"]
    assert "secret" not in response.text


async def test_a_long_wait_for_the_first_token_opens_the_stream_with_comments(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate(first="")
    models = FakeModels([desired_model("chat")], {"chat": gate})
    async with (
        served(tmp_path, models, heartbeat_seconds=0.05) as (_, client),
        client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as answer,
    ):
        lines = answer.aiter_lines()
        assert answer.status_code == 200
        assert await anext(lines) == ": waiting"
        gate.opened.set()
        rest = "\n".join([line async for line in lines])
    assert events(rest)[-1] == "[DONE]"
    assert events(rest)[1]["choices"][0]["delta"] == {"content": " two"}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_generation(
    tmp_path: pathlib.Path, *, stream: bool
) -> None:
    gate = Gate()
    models = FakeModels([desired_model("chat")], {"chat": gate})
    async with served(tmp_path, models) as (runtime, client):
        asking = asyncio.create_task(
            client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
        )
        await asyncio.wait_for(gate.began.wait(), 10)
        asking.cancel()
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        await eventually(lambda: models.leases == 0 and runtime.services.drain.in_flight == 0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_gives_up_its_place_in_the_queue(
    tmp_path: pathlib.Path, *, stream: bool
) -> None:
    models = FakeModels([desired_model("chat")])
    models.queue["chat"] = asyncio.Event()
    async with served(tmp_path, models) as (runtime, client):
        asking = asyncio.create_task(
            client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
        )
        await eventually(lambda: runtime.services.drain.in_flight == 1)
        asking.cancel()
        await asyncio.wait_for(models.left_queue.wait(), 10)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_takes_longer_than_its_model_allows_times_out(
    tmp_path: pathlib.Path, *, stream: bool
) -> None:
    gate = Gate(first="")
    model = desired_model("chat", serving=ServingLimits(request_seconds=1))
    async with served(tmp_path, FakeModels([model], {"chat": gate})) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "stream": stream})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert gate.cancelled.is_set()


async def test_a_generation_that_never_says_how_it_ended_is_an_engine_failure(
    tmp_path: pathlib.Path,
) -> None:
    async def broken_off(request: GenerateRequest) -> AsyncIterator[Chunk]:
        yield Chunk(text="One")

    models = FakeModels([desired_model("chat")], {"chat": broken_off})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json=HELLO)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_failed"


async def test_a_completion_model_does_not_answer_chats(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat", task=Task.COMPLETION)])
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json=HELLO)
    assert response.status_code == 400
    assert "/v1/completions" in response.json()["error"]["message"]


async def test_text_beyond_ascii_arrives_as_it_left(tmp_path: pathlib.Path) -> None:
    async def script(request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in says("Grüße", " 🚰", finish=FinishReason.LENGTH):
            yield chunk

    models = FakeModels([desired_model("chat")], {"chat": script})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    *content, done = events(response.text)[1:]
    assert "".join(c["choices"][0]["delta"]["content"] for c in content) == "Grüße 🚰"
    assert content[-1]["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_completions_continue_each_prompt_as_a_choice(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    body = {"model": "chat", "prompt": ["a", "b"]}
    async with served(tmp_path, models) as (_, client):
        whole = (await client.post("/v1/completions", json=body)).json()
        stream = await client.post("/v1/completions", json={**body, "stream": True})
        tokens = (await client.post("/v1/completions", json={**body, "prompt": [1, 2]})).json()
    assert whole["object"] == "text_completion"
    assert [(c["index"], c["text"]) for c in whole["choices"]] == [
        (0, "You said: a"),
        (1, "You said: b"),
    ]
    assert whole["usage"]["total_tokens"] == 16
    assert models.requests[0].sampling.max_tokens == 16
    *parts, done = events(stream.text)
    assert done == "[DONE]"
    assert "".join(p["choices"][0]["text"] for p in parts if p["choices"][0]["index"] == 1) == (
        "You said: b"
    )
    assert tokens["choices"][0]["text"] == "You said: (1, 2)"


async def test_the_choices_of_a_request_are_made_at_once(tmp_path: pathlib.Path) -> None:
    together = asyncio.Barrier(3)

    async def meets(request: GenerateRequest) -> AsyncIterator[Chunk]:
        async with asyncio.timeout(10):
            await together.wait()
        async for chunk in says("met", finish=FinishReason.STOP):
            yield chunk

    models = FakeModels([desired_model("chat")], {"chat": meets})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "n": 3, "seed": 4})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert [c["message"]["content"] for c in answer["choices"]] == ["met"] * 3
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert sorted(request.sampling.seed or 0 for request in models.requests) == [4, 5, 6]
    assert all(0 < (request.timeout_seconds or 0) <= 300 for request in models.requests)


async def test_a_request_has_so_many_choices_in_the_engine_at_a_time(
    tmp_path: pathlib.Path,
) -> None:
    running = most = 0

    async def counts(request: GenerateRequest) -> AsyncIterator[Chunk]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        async for chunk in says("a", "b"):
            await asyncio.sleep(0)
            yield chunk
        running -= 1

    models = FakeModels([desired_model("chat")], {"chat": counts})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "n": 128})
    assert [c["index"] for c in response.json()["choices"]] == list(range(128))
    assert most == AT_ONCE


async def test_the_first_error_ends_every_choice_and_is_the_only_one(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()

    async def one_fails(request: GenerateRequest) -> AsyncIterator[Chunk]:
        if request.request_id.endswith("-1"):
            await gate.began.wait()
            raise Overloaded("full", retry_after=1)
        async for chunk in gate(request):
            yield chunk

    models = FakeModels([desired_model("chat")], {"chat": one_fails})
    async with served(tmp_path, models) as (_, client):
        response = await client.post("/v1/chat/completions", json={**HELLO, "n": 3})
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        assert models.leases == 0
        stream = await client.post("/v1/chat/completions", json={**HELLO, "n": 3, "stream": True})
    assert response.status_code == 429
    assert response.json()["error"]["code"] == Overloaded.code
    *_, last = events(stream.text)
    assert last["error"]["code"] == Overloaded.code


async def test_a_client_that_leaves_ends_every_choice(tmp_path: pathlib.Path) -> None:
    gates = [Gate() for _ in range(3)]

    async def each_its_own(request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in gates[int(request.request_id.rpartition("-")[2])](request):
            yield chunk

    models = FakeModels([desired_model("chat")], {"chat": each_its_own})
    async with served(tmp_path, models) as (_, client):
        asking = asyncio.create_task(
            client.post("/v1/chat/completions", json={**HELLO, "n": 3, "stream": True})
        )
        for gate in gates:
            await asyncio.wait_for(gate.began.wait(), 10)
        asking.cancel()
        for gate in gates:
            await asyncio.wait_for(gate.cancelled.wait(), 10)
        await eventually(lambda: models.leases == 0)


async def test_likely_tokens_of_a_banned_token_are_valid_json(tmp_path: pathlib.Path) -> None:
    async def tells(request: GenerateRequest) -> AsyncIterator[Chunk]:
        never = LikelyToken(b"\xff", -math.inf)
        told = (TokenLogprobs(LikelyToken(b"a", -0.5), (LikelyToken(b"a", -0.5), never)),)
        yield Chunk("a", Usage(5, 1), FinishReason.LENGTH, logprobs=told)

    models = FakeModels([desired_model("chat")], {"chat": tells})
    chat = {**HELLO, "logprobs": True, "top_logprobs": 2}
    text = {"model": "chat", "prompt": "x", "logprobs": 2}
    async with served(tmp_path, models) as (_, client):
        chatted = await client.post("/v1/chat/completions", json=chat)
        completed = await client.post("/v1/completions", json=text)
    (told,) = chatted.json()["choices"][0]["logprobs"]["content"]
    assert told["top_logprobs"][1] == {"token": "\ufffd", "logprob": -9999.0, "bytes": [255]}
    assert completed.json()["choices"][0]["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5, "\ufffd": -9999.0}],
        "text_offset": [0],
    }


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
async def test_parts_that_are_no_text_are_refused_by_name(
    tmp_path: pathlib.Path, kind: str
) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "data:"}}]
    body = {"model": "chat", "messages": [{"role": "user", "content": parts}]}
    async with served(tmp_path, FakeModels([desired_model("chat")])) as (_, client):
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "messages[0].content"
    assert kind in error["message"]
    assert "text part" in error["message"]


async def test_as_many_requests_as_allowed_are_worked_on_and_no_more(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()
    models = FakeModels([desired_model("chat")], {"chat": gate})
    async with served(tmp_path, models, max_concurrent_requests=1) as (_, client):
        first = asyncio.create_task(client.post("/v1/chat/completions", json=HELLO))
        await asyncio.wait_for(gate.began.wait(), 10)
        refused = await client.post("/v1/chat/completions", json=HELLO)
        probe = await client.get("/readyz")
        gate.opened.set()
        assert (await first).status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == Overloaded.code
    assert refused.headers["retry-after"] == "1"
    assert probe.status_code == 200


async def test_an_ending_process_lets_streams_end_and_then_says_so(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()
    models = FakeModels([desired_model("chat")], {"chat": gate})
    async with served(tmp_path, models, drain_seconds=0.3) as (runtime, client):
        async with client.stream(
            "POST", "/v1/chat/completions", json={**HELLO, "stream": True}
        ) as answer:
            await asyncio.wait_for(gate.began.wait(), 10)
            ending = asyncio.create_task(runtime.shut_down())
            text = "".join([part async for part in answer.aiter_text()])
        await ending
        with pytest.raises(httpx.ConnectError):
            await client.get("/livez")
    assert events(text)[-1]["error"]["code"] == "shutting_down"
    assert models.closed_with is not None


async def test_an_ending_process_lets_a_stream_complete_that_ends_in_time(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()
    models = FakeModels([desired_model("chat")], {"chat": gate})
    async with (
        served(tmp_path, models, drain_seconds=20) as (runtime, client),
        client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as answer,
    ):
        await asyncio.wait_for(gate.began.wait(), 10)
        ending = asyncio.create_task(runtime.shut_down())
        await eventually(runtime.services.drain.stopping.is_set)
        gate.opened.set()
        text = "".join([part async for part in answer.aiter_text()])
        async with asyncio.timeout(10):
            await ending
    assert events(text)[-1] == "[DONE]"


async def test_an_ending_process_takes_requests_while_balancers_notice(
    tmp_path: pathlib.Path,
) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models, linger_seconds=20) as (runtime, client):
        hurry = asyncio.Event()
        ending = asyncio.create_task(runtime.shut_down(hurry))
        await eventually(lambda: runtime.services.drain.leaving)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
        hurry.set()
        async with asyncio.timeout(10):
            await ending


async def test_a_client_that_reads_slowly_holds_its_own_stream_up_and_nobody_elses(
    tmp_path: pathlib.Path,
) -> None:
    made = 0

    async def endless(request: GenerateRequest) -> AsyncIterator[Chunk]:
        nonlocal made
        while True:
            made += 1
            yield Chunk(text="x" * 10_000, usage=Usage(prompt_tokens=1))
            await asyncio.sleep(0)

    models = FakeModels([desired_model("slow"), desired_model("chat")], {"slow": endless})
    async with served(tmp_path, models) as (_, client):
        body = {**HELLO, "model": "slow", "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            before = -1
            while made != before:
                before = made
                # Nobody reads: the socket's buffers fill, and then the generation waits.
                assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200
            assert made < 10_000
            assert answer.status_code == 200


@pytest.mark.parametrize(("asked", "served_with"), [("flex", "flex"), ("priority", "default")])
@pytest.mark.parametrize(
    ("path", "question"),
    [("chat/completions", HELLO), ("completions", {"model": "chat", "prompt": "hello"})],
)
async def test_answers_and_streams_say_which_tier_they_were_served_with(
    tmp_path: pathlib.Path, path: str, question: dict[str, Any], asked: str, served_with: str
) -> None:
    models = FakeModels([desired_model("chat")])
    body = {**question, "service_tier": asked, "n": 2}
    async with served(tmp_path, models) as (_, client):
        whole = (await client.post(f"/v1/{path}", json=body)).json()
        further = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await client.post(f"/v1/{path}", json={**body, **further})
    assert whole["service_tier"] == served_with
    *chunks, done = events(stream.text)
    assert done == "[DONE]"
    assert {chunk["service_tier"] for chunk in chunks} == {served_with}
    assert [r.priority for r in models.requests] == [-1 if asked == "flex" else 0] * 4


@pytest.mark.parametrize("tier", ["fast", "", 1, ["flex"]])
async def test_a_tier_that_there_is_not_is_refused_with_those_that_there_are(
    tmp_path: pathlib.Path, tier: object
) -> None:
    async with served(tmp_path, FakeModels([desired_model("chat")])) as (_, client):
        for path, question in (
            ("chat/completions", HELLO),
            ("completions", {"model": "chat", "prompt": "hello"}),
            ("responses", {"model": "chat", "input": "hello"}),
        ):
            answer = await client.post(f"/v1/{path}", json={**question, "service_tier": tier})
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["param"] == "service_tier"
            assert "one of auto, default, flex, scale and priority" in error["message"]
