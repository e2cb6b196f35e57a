"""The Responses API over real sockets, with scripted models behind it."""

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import TypeAdapter

from tests.support.runtimes import eventually, served
from tests.support.scripted_models import FakeModels, Gate, desired_model, fails_after, says
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.domain import (
    CallDelta,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    Usage,
)
from ullage_runtime.core.errors import EngineFailed, ModelLoading
from ullage_runtime.http.auth import entry_line

PATH = "/v1/responses"
HELLO = {"model": "chat", "input": "hello"}

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def scripted(**scripts: Any) -> FakeModels:
    return FakeModels([desired_model("chat")], dict(scripts))


def events(text: str) -> list[dict[str, Any]]:
    """Return a stream's events; each must be as OpenAI's client declares it."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if lines:
            name, data = lines
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            _EVENT.validate_python(event)
            found.append(event)
    assert [e["sequence_number"] for e in found] == list(range(len(found)))
    return found


async def answered(client: httpx.AsyncClient, **asked: Any) -> dict[str, Any]:
    answer = await client.post(PATH, json={**HELLO, **asked})
    assert answer.status_code == 200, answer.text
    OpenAIResponse.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def test_a_whole_answer_has_openais_shape(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        answer = await answered(
            client,
            instructions="Be brief.",
            metadata={"a": "b"},
            max_output_tokens=9,
            temperature=0,
            top_p=0.5,
            user="me",
            text={"format": {"type": "text"}},
            reasoning={"effort": None},
            truncation="disabled",
            background=False,
            service_tier="auto",
            include=["reasoning.encrypted_content"],
            parallel_tool_calls=True,
            tool_choice="auto",
            tools=[],
        )
    assert answer["id"].startswith("resp_")
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    assert answer["completed_at"] >= answer["created_at"]
    assert answer["error"] is None
    assert answer["incomplete_details"] is None
    assert answer["store"] is True
    assert answer["service_tier"] == "default"
    assert (answer["temperature"], answer["top_p"], answer["max_output_tokens"]) == (0, 0.5, 9)
    assert (answer["instructions"], answer["metadata"], answer["user"]) == (
        "Be brief.",
        {"a": "b"},
        "me",
    )
    (message,) = answer["output"]
    assert message["id"].startswith("msg_")
    assert {**message, "id": ""} == {
        "id": "",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "You said: hello", "annotations": [], "logprobs": []}
        ],
    }
    assert answer["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8,
    }


async def test_a_stream_tells_everything_in_openais_order(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        response = await client.post(PATH, json={**HELLO, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    told = events(response.text)
    assert [event["type"].removeprefix("response.") for event in told] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, _, added, *_ = told
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["output"] == []
    deltas = [event["delta"] for event in told if event["type"].endswith("text.delta")]
    assert deltas == ["You", " said: ", "hello"]
    *_, text_done, _, item_done, completed = told
    assert text_done["text"] == "You said: hello"
    assert item_done["item"]["id"] == added["item"]["id"]
    assert completed["response"]["output"] == [item_done["item"]]
    assert completed["response"]["id"] == created["response"]["id"]
    assert completed["response"]["usage"]["output_tokens"] == 3


async def test_an_answer_cut_short_is_incomplete(tmp_path: pathlib.Path) -> None:
    async def cut(request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in says("Once", " upon", finish=FinishReason.LENGTH):
            yield chunk

    async with served(tmp_path, scripted(chat=cut)) as (_, client):
        whole = await answered(client)
        stream = events((await client.post(PATH, json={**HELLO, "stream": True})).text)
    for response in (whole, stream[-1]["response"]):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["completed_at"] is None
        assert response["output"][0]["status"] == "incomplete"
    assert stream[-1]["type"] == "response.incomplete"


async def test_an_empty_answer_is_an_empty_message(tmp_path: pathlib.Path) -> None:
    async def silent(request: GenerateRequest) -> AsyncIterator[Chunk]:
        yield Chunk(finish=FinishReason.STOP, usage=Usage(5, 1))

    async with served(tmp_path, scripted(chat=silent)) as (_, client):
        whole = await answered(client)
        stream = events((await client.post(PATH, json={**HELLO, "stream": True})).text)
    assert text_of(whole) == ""
    assert text_of(stream[-1]["response"]) == ""
    assert len(whole["output"]) == 1


ADD = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


async def calls(request: GenerateRequest) -> AsyncIterator[Chunk]:
    yield Chunk(reasoning="Sums.", usage=Usage(5))
    yield Chunk(text="Let me see.")
    yield Chunk(calls=(CallDelta(0, "add"),))
    yield Chunk(calls=(CallDelta(0, None, '{"a":'),))
    yield Chunk(calls=(CallDelta(0, None, "1}"), CallDelta(1, "add", "{}")))
    yield Chunk(finish=FinishReason.TOOL_CALLS, usage=Usage(5, 20, reasoning_tokens=3))


async def test_thoughts_and_calls_are_items_and_go_on_with_their_outputs(
    tmp_path: pathlib.Path,
) -> None:
    models = scripted(chat=calls)
    async with served(tmp_path, models) as (_, client):
        first = await answered(client, tools=[ADD], tool_choice="auto")
        streamed = events((await client.post(PATH, json={**HELLO, "stream": True})).text)
        thought, message, one, two = first["output"]
        outputs = [
            {"type": "function_call_output", "call_id": call["call_id"], "output": "1"}
            for call in (one, two)
        ]
        models.scripts.clear()
        second = await answered(client, input=outputs, previous_response_id=first["id"])
        listed = (await client.get(f"{PATH}/{second['id']}/input_items?order=asc")).json()
        alone = await client.post(PATH, json={**HELLO, "input": outputs})
    ResponseItemList.model_validate(listed)
    assert [item["type"] for item in listed["data"]] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Sums."}]
    assert message["content"][0]["text"] == "Let me see."
    assert (one["name"], one["arguments"], two["arguments"]) == ("add", '{"a":1}', "{}")
    assert one["call_id"] != two["call_id"]
    assert first["status"] == "completed"
    assert first["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}
    assert first["tools"] == [{**ADD, "description": None, "strict": None}]
    deltas = [e["delta"] for e in streamed if e["type"].endswith("arguments.delta")]
    assert deltas == ['{"a":', "1}", "{}"]
    assert [item["type"] for item in streamed[-1]["response"]["output"]] == [
        item["type"] for item in first["output"]
    ]
    asked, _, after = models.requests
    assert asked.tools is not None
    assert [tool.name for tool in asked.tools.offered] == ["add"]
    _, said, *told = after.messages or ()
    assert said.reasoning == "Sums."
    assert [call.id for call in said.calls] == [one["call_id"], two["call_id"]]
    assert [(m.role, m.call_id, m.content) for m in told] == [
        ("tool", one["call_id"], "1"),
        ("tool", two["call_id"], "1"),
    ]
    assert alone.status_code == 400
    assert alone.json()["error"]["param"] == "input"


@pytest.mark.parametrize(
    ("choice", "offered", "required", "only"),
    [
        ("auto", ["add", "sub"], False, None),
        ("required", ["add", "sub"], True, None),
        ({"type": "function", "name": "sub"}, ["add", "sub"], False, "sub"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{**ADD}]},
            ["add"],
            True,
            None,
        ),
    ],
)
async def test_tools_are_chosen_as_openai_writes_it(
    tmp_path: pathlib.Path,
    choice: object,
    offered: list[str],
    required: bool,  # noqa: FBT001 - a row of the table
    only: str | None,
) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        tools = [ADD, {**ADD, "name": "sub"}]
        answer = await answered(client, tools=tools, tool_choice=choice, parallel_tool_calls=False)
        none = await answered(client, tools=tools, tool_choice="none")
    given = models.requests[0].tools
    assert given is not None
    assert [tool.name for tool in given.offered] == offered
    assert (given.required, given.only, given.parallel) == (required, only, False)
    assert answer["tool_choice"] == choice
    assert answer["parallel_tool_calls"] is False
    assert models.requests[1].tools is None
    assert none["tool_choice"] == "none"


async def test_a_conversation_goes_on_from_a_stored_response(tmp_path: pathlib.Path) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        first = await answered(client, instructions="Be brief.")
        second = await answered(client, input="again", previous_response_id=first["id"])
        third = await client.post(
            PATH,
            json={
                "model": "chat",
                "input": [{"role": "user", "content": "and again"}],
                "previous_response_id": second["id"],
                "stream": True,
            },
        )
    assert second["previous_response_id"] == first["id"]
    assert events(third.text)[-1]["response"]["status"] == "completed"
    assert [request.messages for request in models.requests] == [
        (Message("system", "Be brief."), Message("user", "hello")),
        # Instructions are a request's own; they are not carried on.
        (
            Message("user", "hello"),
            Message("assistant", "You said: hello"),
            Message("user", "again"),
        ),
        (
            Message("user", "hello"),
            Message("assistant", "You said: hello"),
            Message("user", "again"),
            Message("assistant", "You said: again"),
            Message("user", "and again"),
        ),
    ]


async def test_a_conversation_outlives_its_process_and_its_earlier_turns(
    tmp_path: pathlib.Path,
) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        first = await answered(client)
        second = await answered(client, input="again", previous_response_id=first["id"])
        assert (await client.delete(f"{PATH}/{first['id']}")).status_code == 200
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        assert (await client.get(f"{PATH}/{first['id']}")).status_code == 404
        await answered(client, input="more", previous_response_id=second["id"])
    assert len(models.requests[0].messages or ()) == 5


async def test_items_may_be_referred_to(tmp_path: pathlib.Path) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        first = await answered(client)
        asked = [
            {"type": "item_reference", "id": first["output"][0]["id"]},
            {"role": "user", "content": "why?"},
        ]
        second = await answered(client, input=asked)
        items = (await client.get(f"{PATH}/{second['id']}/input_items?order=asc")).json()
        refused = await client.post(PATH, json={**HELLO, "input": [{"id": "msg_nobody"}]})
    assert models.requests[1].messages == (
        Message("assistant", "You said: hello"),
        Message("user", "why?"),
    )
    assert items["data"][0] == first["output"][0]
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input[0]"


async def test_stored_responses_are_retrieved_listed_and_deleted(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        first = await answered(client)
        second = await answered(client, input="again", previous_response_id=first["id"])
        path = f"{PATH}/{second['id']}"
        assert (await client.get(path)).json() == second
        listed = (await client.get(f"{path}/input_items")).json()
        ResponseItemList.model_validate(listed)
        assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]
        page = (await client.get(f"{path}/input_items?limit=1&order=asc")).json()
        assert page["has_more"]
        assert page["data"][0]["content"][0]["text"] == "hello"
        assert (await client.get(f"{path}?stream=true")).status_code == 400
        assert (await client.get(f"{path}/input_items?limit=101")).status_code == 400
        cancelled = await client.post(f"{path}/cancel")
        assert cancelled.status_code == 400
        assert "background" in cancelled.json()["error"]["message"]
        deleted = await client.delete(path)
        assert deleted.json() == {"id": second["id"], "object": "response", "deleted": True}
        for gone in (
            await client.get(path),
            await client.delete(path),
            await client.get(f"{path}/input_items"),
            await client.post(f"{path}/cancel"),
        ):
            assert gone.status_code == 404
            assert gone.json()["error"]["code"] == "response_not_found"
        onward = await client.post(PATH, json={**HELLO, "previous_response_id": second["id"]})
        assert onward.status_code == 400
        assert onward.json()["error"]["code"] == "previous_response_not_found"
        assert onward.json()["error"]["param"] == "previous_response_id"
        assert (await client.get(f"{PATH}/{first['id']}")).status_code == 200


async def test_metrics_tell_how_much_is_stored(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        first = await answered(client)
        await answered(client, input="again", previous_response_id=first["id"])
        await client.delete(f"{PATH}/{first['id']}")
        told = (await client.get("/metrics")).text
    assert "ullage_stored_responses 1.0" in told
    (line,) = (line for line in told.splitlines() if line.startswith("ullage_stored_responses_b"))
    assert float(line.split()[1]) > 0


async def test_what_is_not_to_be_stored_is_not(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted()) as (_, client):
        answer = await answered(client, store=False)
        assert answer["store"] is False
        assert (await client.get(f"{PATH}/{answer['id']}")).status_code == 404


async def test_an_answer_that_cannot_be_stored_says_so(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted(), responses_max_bytes=0) as (_, client):
        whole = await answered(client)
        stream = events((await client.post(PATH, json={**HELLO, "stream": True})).text)
        assert whole["store"] is False
        assert stream[-1]["response"]["store"] is False
        assert (await client.get(f"{PATH}/{whole['id']}")).status_code == 404


async def test_an_expired_response_is_said_to_have_expired(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, scripted(), responses_keep_seconds=1e-9) as (_, client):
        answer = await answered(client)
        gone = await client.get(f"{PATH}/{answer['id']}")
        onward = await client.post(PATH, json={**HELLO, "previous_response_id": answer["id"]})
    assert gone.status_code == 404
    assert "has expired" in gone.json()["error"]["message"]
    assert "has expired" in onward.json()["error"]["message"]


async def test_a_response_belongs_to_its_key_alone(tmp_path: pathlib.Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for tenant in ("a", "b"):
        (keys / tenant).write_text(entry_line(f"key-{tenant}"))
    mine = {"Authorization": "Bearer key-a"}
    theirs = {"Authorization": "Bearer key-b"}
    async with served(tmp_path, scripted(), api_keys_dir=keys) as (_, client):
        answer = (await client.post(PATH, json=HELLO, headers=mine)).json()
        path = f"{PATH}/{answer['id']}"
        reference = {**HELLO, "input": [{"id": answer["output"][0]["id"]}]}
        onward = {**HELLO, "previous_response_id": answer["id"]}
        statuses = [
            (await client.get(path, headers=theirs)).status_code,
            (await client.delete(path, headers=theirs)).status_code,
            (await client.get(f"{path}/input_items", headers=theirs)).status_code,
            (await client.post(f"{path}/cancel", headers=theirs)).status_code,
            (await client.post(PATH, json=onward, headers=theirs)).status_code,
            (await client.post(PATH, json=reference, headers=theirs)).status_code,
            (await client.get(path)).status_code,
        ]
        assert statuses == [404, 404, 404, 404, 400, 400, 401]
        assert (await client.get(path, headers=mine)).json() == answer
        assert (await client.post(PATH, json=onward, headers=mine)).status_code == 200


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "computer_use_preview"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": {}}]}},
            "tool_choice.tools[0]",
        ),
        (
            {
                "tools": [ADD, {"type": "function", "name": {}}],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [ADD]},
            },
            "tools[1].name",
        ),
        (
            {
                "tools": [ADD],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "x"}],
                },
            },
            "tool_choice.tools[0]",
        ),
        (
            {
                "tools": [ADD],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []},
            },
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**ADD, "parameters": {"a": "\ud800"}}]}, "tools[0].parameters"),
        ({"include": ["everything"]}, "include"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"store": "yes"}, "store"),
        ({"instructions": "\ud800"}, "instructions"),
        ({"seed": "x"}, "seed"),
        ({"previous_response_id": "resp_nobody"}, "previous_response_id"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: pathlib.Path, asked: dict[str, Any], param: str
) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        refused = await client.post(
            PATH,
            # httpx would not write half a character.
            content=json.dumps({**HELLO, **asked}).encode(),
            headers={"Content-Type": "application/json"},
        )
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param
    assert models.requests == []


async def test_sampling_beyond_openais_works_as_for_chats(tmp_path: pathlib.Path) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        await answered(client, seed=7, top_k=3, stop=["x"], min_p=0.1)
        await answered(client)
    asked, plain = (request.sampling for request in models.requests)
    assert (asked.seed, asked.top_k, asked.stop, asked.min_p) == (7, 3, ("x",), 0.1)
    assert plain.max_tokens is None


async def test_an_error_before_the_first_token_is_an_http_status(tmp_path: pathlib.Path) -> None:
    models = scripted()
    models.refusals["chat"] = ModelLoading("still loading", retry_after=3)
    async with served(tmp_path, models) as (_, client):
        response = await client.post(PATH, json={**HELLO, "stream": True})
        other = await client.post(PATH, json={**HELLO, "model": "nobody"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "3"
    assert other.json()["error"]["code"] == "model_not_found"


async def test_an_error_after_the_headers_is_one_failed_event_and_the_end(
    tmp_path: pathlib.Path,
) -> None:
    script = fails_after("One", error=EngineFailed("the engine died", retry_after=1))
    async with served(tmp_path, scripted(chat=script)) as (_, client):
        response = await client.post(PATH, json={**HELLO, "stream": True})
        *before, last = events(response.text)
        assert (await client.get(f"{PATH}/{last['response']['id']}")).status_code == 404
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {
        "code": "server_error",
        "message": "the engine died",
        "param": None,
        "type": "engine_failed",
    }
    assert text_of(last["response"]) == "One"
    assert all(not event["type"].endswith((".done", ".completed")) for event in before)


async def test_a_long_wait_for_the_first_token_is_filled_with_comments(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate(first="")
    async with (
        served(tmp_path, scripted(chat=gate), heartbeat_seconds=0.05) as (_, client),
        client.stream("POST", PATH, json={**HELLO, "stream": True}) as answer,
    ):
        lines = answer.aiter_lines()
        before = []
        while (line := await anext(lines)) != ": waiting":
            before.append(line)
        gate.opened.set()
        rest = [line async for line in lines]
    assert "event: response.created" in before
    told = events("\n".join([*before, "", *rest]))
    assert told[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_generation(
    tmp_path: pathlib.Path, *, stream: bool
) -> None:
    gate = Gate()
    models = scripted(chat=gate)
    async with served(tmp_path, models) as (runtime, client):
        asking = asyncio.create_task(client.post(PATH, json={**HELLO, "stream": stream}))
        await asyncio.wait_for(gate.began.wait(), 10)
        asking.cancel()
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        await eventually(lambda: models.leases == 0 and runtime.services.drain.in_flight == 0)


async def test_an_ending_process_says_so_in_its_streams(tmp_path: pathlib.Path) -> None:
    gate = Gate()
    async with served(tmp_path, scripted(chat=gate)) as (runtime, client):
        async with client.stream("POST", PATH, json={**HELLO, "stream": True}) as answer:
            await asyncio.wait_for(gate.began.wait(), 10)
            ending = asyncio.create_task(runtime.shut_down())
            text = "".join([part async for part in answer.aiter_text()])
        await ending
    assert events(text)[-1]["response"]["error"]["type"] == "shutting_down"


async def test_rate_limits_count_responses_as_they_count_chats(tmp_path: pathlib.Path) -> None:
    model = desired_model("chat", serving=ServingLimits(requests_per_minute=2))
    async with served(tmp_path, FakeModels([model])) as (_, client):
        first = await client.post(PATH, json=HELLO)
        chat = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
        await client.post("/v1/chat/completions", json=chat)
        refused = await client.post(PATH, json=HELLO)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_completion_model_does_not_answer(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat", task=Task.COMPLETION)])
    async with served(tmp_path, models) as (_, client):
        response = await client.post(PATH, json=HELLO)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


async def test_a_response_says_which_tier_it_was_served_with_whenever_it_is_asked_for(
    tmp_path: pathlib.Path,
) -> None:
    models = scripted()
    async with served(tmp_path, models) as (_, client):
        answer = await answered(client, service_tier="flex")
        kept = (await client.get(f"{PATH}/{answer['id']}")).json()
    assert answer["service_tier"] == kept["service_tier"] == "flex"
    assert [request.priority for request in models.requests] == [-1]
