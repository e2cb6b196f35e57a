"""A response as it grows: items one after the other, and the events that tell of them."""

import itertools
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from ullage_runtime.core.domain import FinishReason, Sampling, Usage
from ullage_runtime.core.errors import InvalidRequest, Overloaded, RequestTimeout, ServingError
from ullage_runtime.http.responses.head import response_head
from ullage_runtime.http.responses.schema import ResponseRequest
from ullage_runtime.http.responses.turn import Event, Turn

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def turn(**asked: Any) -> Turn:
    body = ResponseRequest.model_validate({"model": "chat", "input": "hello", **asked})
    numbers = itertools.count()
    head = response_head(body, "resp_1", 1_800_000_000, Sampling(), "default")
    return Turn(head, lambda kind: f"{kind}_{next(numbers)}", lambda: 1_800_000_007.5)


def told(events: list[Event]) -> list[str]:
    """Return the events' names; each must be as OpenAI's client declares it, and in its turn."""
    for event in events:
        _EVENT.validate_python(event)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [event["type"].removeprefix("response.") for event in events]


def test_thoughts_words_and_calls_are_items_of_their_own() -> None:
    growing = turn()
    events = [
        *growing.begin(),
        *growing.think("Hm"),
        *growing.think("."),
        *growing.say("Let me see."),
        *growing.call("c1", "add"),
        *growing.argue('{"a":'),
        *growing.argue("1}"),
        *growing.call("c2", "add"),
        *growing.argue("{}"),
        *growing.end(FinishReason.STOP, Usage(7, 9, 2)),
        growing.last(),
    ]
    assert told(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    places = [e["output_index"] for e in events if e["type"] == "response.output_item.done"]
    assert places == [0, 1, 2, 3]
    response = growing.response
    Response.model_validate(response)
    thought, message, first, second = response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "Let me see."
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "add", '{"a":1}')
    assert (second["call_id"], second["arguments"]) == ("c2", "{}")
    assert {item["status"] for item in response["output"]} == {"completed"}
    assert response["completed_at"] == 1_800_000_007
    assert response["usage"]["total_tokens"] == 16
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 2


def test_of_what_is_cut_short_only_the_last_item_is_incomplete() -> None:
    growing = turn()
    growing.think("Hm.")
    growing.say("Let")
    growing.end(FinishReason.LENGTH, Usage())
    assert growing.response["status"] == "incomplete"
    assert [item["status"] for item in growing.response["output"]] == ["completed", "incomplete"]
    assert told([growing.last()]) == ["incomplete"]


def test_an_answer_of_calls_alone_has_no_empty_message() -> None:
    growing = turn()
    growing.call("c1", "add")
    growing.end(FinishReason.STOP, Usage())
    assert [item["type"] for item in growing.response["output"]] == ["function_call"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestTimeout("too long"), "server_error"),
        (Overloaded("full"), "rate_limit_exceeded"),
        (InvalidRequest("bad", "input"), "invalid_prompt"),
    ],
)
def test_a_failure_keeps_what_there_was_and_says_why(error: ServingError, code: str) -> None:
    growing = turn()
    begun = growing.say("Let")
    growing.fail(error, Usage(3, 1))
    last = growing.last()
    assert told([*begun, last])[-1] == "failed"
    Response.model_validate(growing.response)
    assert growing.response["error"] == {
        "code": code,
        "message": error.message,
        "param": error.param,
        "type": error.code,
    }
    assert growing.response["output"][0]["content"][0]["text"] == "Let"
    assert growing.response["output"][0]["status"] == "incomplete"
