"""A model in safetensors behind the API, computed by the real vLLM: one start for all tests."""

import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support import stores
from tests.support.llama_folders import write_adapter, write_llama
from tests.support.runtimes import eventually
from tests.support.vllm_runtime import (
    START,
    all_serve,
    document,
    model,
    reported,
    serving,
    worker_of,
)
from ullage_runtime.app import Runtime
from ullage_runtime.engines.procfs import proportional_set_size

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(2 * START)]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": "fill",
        "parameters": {
            "type": "object",
            "properties": {"tank": {"enum": ["left", "right"]}},
            "required": ["tank"],
            "additionalProperties": False,
        },
    },
}

Served = tuple[Runtime, httpx.AsyncClient]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llama(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    write_llama(folder / "llama")
    write_adapter(folder / "tone")
    wanted = model("llama", "llama", adapters={"tone": "tone"}, parallel=4)
    async with serving(folder / "run", document(folder, wanted)) as (runtime, client):
        yield runtime, client


async def answered(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    question = {"model": "llama", "temperature": 0, "max_tokens": 16, **body}
    answer = await client.post(path, json=question)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def events(client: httpx.AsyncClient, path: str, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream, which ends as it should or with an error."""
    question = {"model": "llama", "temperature": 0, "stream": True, **body}
    async with client.stream("POST", path, json=question) as answer:
        assert answer.status_code == 200
        return [
            json.loads(line.removeprefix("data: "))
            async for line in answer.aiter_lines()
            if line.startswith("data: ") and line != "data: [DONE]"
        ]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_status_says_what_serves_the_model(llama: Served) -> None:
    runtime, client = llama
    active = reported(runtime, "llama").active
    assert active is not None
    assert active.engine == "VLLM"
    assert active.device == "CPU (vLLM 0.32.0)"
    assert active.context_length == 512
    listed = (await client.get("/memory/models")).json()["data"]
    assert [(m["id"], m["residency"]) for m in listed] == [("llama", "Resident")]


async def test_a_stream_says_what_the_whole_answer_says(llama: Served) -> None:
    _, client = llama
    whole = await answered(client, CHAT, messages=user("hello"))
    choice, usage = whole["choices"][0], whole["usage"]
    assert choice["finish_reason"] == "length"
    assert usage["completion_tokens"] == 16
    found = await events(
        client,
        CHAT,
        messages=user("hello"),
        max_tokens=16,
        stream_options={"include_usage": True},
    )
    deltas = [event["choices"][0]["delta"] for event in found if event["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("content") or "" for d in deltas) == choice["message"]["content"]
    assert found[-1]["usage"] == usage


async def test_many_at_once_are_answered_as_each_alone(llama: Served) -> None:
    _, client = llama
    texts = [f"question {number}" for number in range(12)]
    alone = [await answered(client, COMPLETIONS, prompt=text) for text in texts]
    together = await asyncio.gather(*(answered(client, COMPLETIONS, prompt=t) for t in texts))
    assert [a["choices"][0]["text"] for a in together] == [a["choices"][0]["text"] for a in alone]
    metrics = (await client.get("/metrics")).text
    assert 'ullage_batch_width_bucket{le="4.0",model="llama"}' in metrics


async def test_log_probabilities_are_the_models(llama: Served) -> None:
    _, client = llama
    body = {"messages": user("hi"), "max_tokens": 5, "logprobs": True, "top_logprobs": 3}
    tokens = (await answered(client, CHAT, **body))["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 5
    for token in tokens:
        told = [each["logprob"] for each in token["top_logprobs"]]
        assert len(told) == 3
        assert told == sorted(told, reverse=True)
        assert token["logprob"] == told[0]  # greedy
        assert sum(map(math.exp, told)) < 1
    plain = await answered(client, COMPLETIONS, prompt="hi", max_tokens=3, logprobs=2)
    assert len(plain["choices"][0]["logprobs"]["token_logprobs"]) == 3


async def test_an_answer_follows_a_schema_a_grammar_and_a_tool(llama: Served) -> None:
    _, client = llama
    schema = {"enum": ["red", "blue"]}
    form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}}
    found = await answered(client, CHAT, messages=user("colour?"), response_format=form)
    assert json.loads(found["choices"][0]["message"]["content"]) in {"red", "blue"}
    assert found["choices"][0]["finish_reason"] == "stop"

    grammar = 'root ::= ("ab" | "cd"){2}'
    found = await answered(client, COMPLETIONS, prompt="x", guided_grammar=grammar)
    assert found["choices"][0]["text"] in {"abab", "abcd", "cdab", "cdcd"}

    body = {"messages": user("fill it"), "tools": [TOOL], "tool_choice": "required"}
    found = await answered(client, CHAT, **body, parallel_tool_calls=False, max_tokens=100)
    (call,) = found["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "fill"
    assert json.loads(call["function"]["arguments"])["tank"] in {"left", "right"}
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    free = await answered(client, CHAT, messages=user("fill it"), tools=[TOOL])
    assert free["choices"][0]["finish_reason"] in {"length", "stop", "tool_calls"}

    deep: dict[str, Any] = {"type": "null"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    for wrong in ({"guided_grammar": "root ::= ("}, {"guided_json": deep}):
        refused = await client.post(COMPLETIONS, json={"model": "llama", "prompt": "x", **wrong})
        assert refused.status_code == 400, refused.text
        assert refused.json()["error"]["code"] == "invalid_request_error"


async def test_stops_seeds_and_sampling_are_passed_on(llama: Served) -> None:
    _, client = llama
    text = (await answered(client, COMPLETIONS, prompt="hello"))["choices"][0]["text"]
    stop = next(character for character in text[2:] if character.isascii())
    cut = (await answered(client, COMPLETIONS, prompt="hello", stop=[stop]))["choices"][0]
    assert cut == {**cut, "text": text[: text.index(stop)], "finish_reason": "stop"}
    drawn = {"prompt": "hello", "temperature": 1.5, "top_k": 0, "max_tokens": 12}
    one, same, other = [
        (await answered(client, COMPLETIONS, **drawn, seed=seed))["choices"][0]["text"]
        for seed in (1, 1, 2)
    ]
    assert one == same != other
    echo = await answered(client, COMPLETIONS, prompt="hello", echo=True, max_tokens=2)
    assert echo["choices"][0]["text"].startswith("hello")


async def test_an_adapter_changes_what_is_said(llama: Served) -> None:
    _, client = llama
    plain = await answered(client, COMPLETIONS, prompt="hello")
    changed = await answered(client, COMPLETIONS, prompt="hello", model="llama:tone")
    assert changed["choices"][0]["text"] != plain["choices"][0]["text"]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"prompt": "x" * 600}, "context_length_exceeded", "512 tokens"),
        ({"prompt": ""}, "invalid_request_error", "empty"),
        ({"prompt": [999_999]}, "invalid_request_error", "vocabulary"),
        ({"prompt": "x", "typical_p": 0.5}, "invalid_request_error", "typical_p"),
        ({"prompt": "x", "echo": True, "logprobs": 1}, "invalid_request_error", "echo"),
        ({"prompt": "x", "suffix": "y"}, "invalid_request_error", "suffix"),
    ],
)
async def test_what_cannot_be_is_refused(
    llama: Served, body: dict[str, Any], code: str, says: str
) -> None:
    _, client = llama
    refused = await client.post(COMPLETIONS, json={"model": "llama", **body})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, code)
    assert says in error["message"]


async def test_texts_become_tokens_and_back(llama: Served) -> None:
    _, client = llama
    told = (await client.post("/tokenize", json={"model": "llama", "prompt": "añb"})).json()
    assert told["count"] == 4
    body = {"model": "llama", "tokens": told["tokens"]}
    assert (await client.post("/detokenize", json=body)).json()["prompt"] == "añb"


async def test_who_leaves_takes_the_generation_along(llama: Served) -> None:
    runtime, client = llama
    question = {"model": "llama", "prompt": "long", "max_tokens": 480, "stream": True}
    async with client.stream("POST", COMPLETIONS, json={**question, "ignore_eos": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                break
        await eventually(lambda: reported(runtime, "llama").requests_running == 1, 10)
    # It would have gone on for hundreds of steps.
    await eventually(lambda: reported(runtime, "llama").requests_running == 0, 10)

    async def is_told() -> bool:
        # By the engine itself, a step later.
        metrics = (await client.get("/metrics")).text
        return 'ullage_requests_running{model="llama"} 0.0' in metrics

    await stores.eventually(is_told, 10)


async def test_the_ledger_has_what_the_process_takes(llama: Served) -> None:
    runtime, _ = llama
    active = reported(runtime, "llama").active
    assert active is not None
    assert active.resident_bytes is not None
    assert active.estimated_bytes is not None
    taken = proportional_set_size(worker_of(runtime, "llama"))
    assert active.resident_bytes == pytest.approx(taken, rel=0.1)
    # What was promised held: nothing else had to leave for what an estimate left out.
    assert taken <= active.estimated_bytes


async def test_a_worker_that_dies_ends_its_streams_with_one_error_and_comes_back(
    llama: Served,
) -> None:
    runtime, client = llama
    pid, restarts = worker_of(runtime, "llama"), reported(runtime, "llama").restarts
    body = {"model": "llama", "prompt": "long", "max_tokens": 480, "ignore_eos": True}
    question = {**body, "stream": True}
    found: list[dict[str, Any]] = []
    async with client.stream("POST", COMPLETIONS, json=question) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == 3:
                os.kill(pid, signal.SIGKILL)
    errors = [event["error"]["code"] for event in found if "error" in event]
    assert errors == ["engine_failed"]
    assert "error" in found[-1]
    # The next one waits for the replacement.
    again = await answered(client, COMPLETIONS, prompt="hello")
    assert again["usage"]["completion_tokens"] == 16
    await eventually(lambda: all_serve(runtime), START)
    assert worker_of(runtime, "llama") != pid
    assert reported(runtime, "llama").restarts == restarts + 1
