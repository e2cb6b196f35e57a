"""Tools and reasoning over a real socket, with scripted models behind them."""

import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion as TheirChatCompletion
from openai.types.chat import ChatCompletionChunk as TheirChunk

from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from ullage_runtime.core.domain import (
    CallDelta,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    Tool,
    ToolCall,
    Tools,
    Usage,
)
from ullage_runtime.http.openai.objects import ChatCompletion, ChatCompletionChunk

CHAT = "/v1/chat/completions"
FUNCTION = {
    "name": "get_weather",
    "description": "Weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [
    {"type": "function", "function": FUNCTION},
    {"type": "function", "function": {"name": "f"}},
]
HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "tools": TOOLS}


async def calls(request: GenerateRequest) -> AsyncIterator[Chunk]:
    yield Chunk(usage=Usage(prompt_tokens=5))
    yield Chunk(reasoning="Hm")
    yield Chunk(reasoning=".")
    yield Chunk(text="Let me look.")
    yield Chunk(calls=(CallDelta(0, "get_weather"),))
    yield Chunk(calls=(CallDelta(0, arguments='{"city":'),))
    yield Chunk(calls=(CallDelta(0, arguments=' "Rome"}'), CallDelta(1, "f", "{}")))
    yield Chunk(finish=FinishReason.TOOL_CALLS, usage=Usage(5, 9, reasoning_tokens=3))


def models_that(script: Any = calls) -> FakeModels:
    return FakeModels([desired_model("chat")], {"chat": script})


async def test_a_whole_answer_has_reasoning_content_and_calls(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, models_that()) as (_, client):
        answer = (await client.post(CHAT, json=HELLO)).json()
    ChatCompletion.model_validate(answer, strict=True, extra="forbid")
    TheirChatCompletion.model_validate(answer)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    first, second = choice["message"].pop("tool_calls")
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me look.",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "Hm.",
        "reasoning": "Hm.",
    }
    assert first.pop("id") != second.pop("id")
    assert first == {
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
    }
    assert second["function"] == {"name": "f", "arguments": "{}"}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}


async def test_an_answer_of_calls_alone_has_no_content(tmp_path: pathlib.Path) -> None:
    async def only(request: GenerateRequest) -> AsyncIterator[Chunk]:
        yield Chunk(calls=(CallDelta(0, "f", "{}"),))
        yield Chunk(finish=FinishReason.TOOL_CALLS, usage=Usage(5, 9))

    async with served(tmp_path, models_that(only)) as (_, client):
        answer = (await client.post(CHAT, json=HELLO)).json()
    assert answer["choices"][0]["message"]["content"] is None
    assert "reasoning_content" not in answer["choices"][0]["message"]


async def test_a_stream_gives_a_calls_id_and_name_once_and_then_its_arguments(
    tmp_path: pathlib.Path,
) -> None:
    async with served(tmp_path, models_that()) as (_, client):
        stream = await client.post(CHAT, json={**HELLO, "stream": True})
    *lines, done = stream.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True, extra="forbid")
        TheirChunk.model_validate(chunk)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content") or "" for delta in deltas) == "Let me look."
    made = [call for delta in deltas for call in delta.get("tool_calls", [])]
    ids = {call["index"]: call.pop("id") for call in made if "id" in call}
    assert len(set(ids.values())) == 2
    assert made == [
        {"index": 0, "type": "function", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": ' "Rome"}'}},
        {"index": 1, "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 7
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_responses_api_has_them_as_items(tmp_path: pathlib.Path) -> None:
    asked = {"model": "chat", "input": "hello", "tools": [{"type": "function", **FUNCTION}]}
    async with served(tmp_path, models_that()) as (_, client):
        answer = (await client.post("/v1/responses", json=asked)).json()
        stream = await client.post("/v1/responses", json={**asked, "stream": True})
    thought, said, first, second = answer["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert said["content"][0]["text"] == "Let me look."
    assert (first["name"], first["arguments"]) == ("get_weather", '{"city": "Rome"}')
    assert first["call_id"] != second["call_id"]
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert stream.text.count("event: response.function_call_arguments.done") == 2
    assert stream.text.count("event: response.reasoning_text.delta") == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"tool_choice": "auto"}, {}),
        ({"tool_choice": "required"}, {"required": True}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"only": "f"}),
        ({"parallel_tool_calls": False}, {"parallel": False}),
    ],
)
async def test_what_may_be_called_reaches_the_engine(
    tmp_path: pathlib.Path, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    models = models_that()
    async with served(tmp_path, models) as (_, client):
        answer = await client.post(CHAT, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    offered = (
        Tool("get_weather", "Weather.", json.dumps(FUNCTION["parameters"])),
        Tool("f"),
    )
    assert models.requests[0].tools == Tools(offered, **expected)


@pytest.mark.parametrize("fields", [{"tool_choice": "none"}, {"tools": []}, {"tools": None}])
async def test_no_tools_are_no_tools(tmp_path: pathlib.Path, fields: dict[str, Any]) -> None:
    models = models_that()
    async with served(tmp_path, models) as (_, client):
        answer = await client.post(CHAT, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    assert models.requests[0].tools is None


async def test_earlier_calls_results_and_thoughts_reach_the_engine(tmp_path: pathlib.Path) -> None:
    models = models_that()
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    history = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hello", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "ok"}]},
        {"role": "assistant", "content": "Done.", "reasoning": "So."},
    ]
    options = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": True}}
    async with served(tmp_path, models) as (_, client):
        answer = await client.post(CHAT, json={**HELLO, "messages": history, **options})
    assert answer.status_code == 200, answer.text
    (request,) = models.requests
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "hello", name="Ann"),
        Message("assistant", "", "Hm.", (ToolCall("call_1", "f", "{}"),)),
        Message("tool", "ok", call_id="call_1"),
        Message("assistant", "Done.", "So."),
    )
    assert request.template_options == {"reasoning_effort": "low", "enable_thinking": True}


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
ASSISTANT = {"role": "assistant", "content": None}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'function'"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "",
        ),
        ({"tools": TOOLS * 65}, "tools", "128"),
        ({"tools": TOOLS * 2}, "tools", "two functions called"),
        ({"tool_choice": "always"}, "tool_choice", "must be auto"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
            "tool_choice",
            "get_weather, f",
        ),
        ({"tools": None, "tool_choice": "required"}, "tool_choice", "only allowed with tools"),
        ({"response_format": {"type": "json_object"}}, "tools", "leave one of them out"),
        ({"functions": [FUNCTION]}, "functions", "send tools instead"),
        ({"function_call": {"name": "f"}}, "function_call", "send tool_choice instead"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "no variable"),
        ({"chat_template_kwargs": {"a-b": 1}}, "chat_template_kwargs", "no variable"),
        ({"chat_template_kwargs": {"a": "x" * 20000}}, "chat_template_kwargs", "bytes"),
        ({"reasoning_effort": 1}, "reasoning_effort", ""),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"a": "\ud800"}}}
                ]
            },
            "tools[0].function.parameters",
            "surrogate",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": {"a": "x" * 70000}},
                    }
                ]
            },
            "tools[0].function.parameters",
            "bytes",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": "x",
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
                    }
                ]
            },
            "messages[0].tool_calls",
            "assistant",
        ),
        (
            {
                "messages": [
                    {
                        **ASSISTANT,
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[1]"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "JSON object",
        ),
        (
            {
                "messages": [
                    {
                        **ASSISTANT,
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "JSON object",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "required"),
    ],
)
async def test_what_cannot_be_called_is_refused_by_name(
    tmp_path: pathlib.Path, fields: dict[str, Any], param: str, words: str
) -> None:
    models = models_that()
    body = json.dumps({**HELLO, **fields})
    async with served(tmp_path, models) as (_, client):
        answer = await client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_request_error")
    assert words in error["message"]
    assert models.requests == []


async def test_a_deep_schema_is_the_engines_to_judge(tmp_path: pathlib.Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": DEEP}}
    async with served(tmp_path, models_that()) as (_, client):
        answer = await client.post(CHAT, json={**HELLO, "tools": [tool]})
    assert answer.status_code in {200, 400}, answer.text
