"""OpenAI's own client and its Responses API, against a real process with the guide model."""

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, Literal, cast

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from tests.support.processes import (
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
    wait_until_answers,
)
from ullage_runtime.http.auth import entry_line

GUIDE = pathlib.Path(__file__).parents[2] / "examples" / "models" / "guide-v1.gguf"
KEYS = {"a": "ullage-key-a", "b": "ullage-key-b"}
QUESTION = "What is Ullage?"
ANSWER = "Ullage is a self-service platform for language models on Kubernetes."


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("up")
    shutil.copy(GUIDE, folder / "guide.gguf")
    (folder / "models.yaml").write_text(manifest("guide", "file:guide.gguf"))
    keys = folder / "keys"
    keys.mkdir()
    for tenant, key in KEYS.items():
        (keys / tenant).write_text(entry_line(key))
    port = free_port()
    env = environment(folder, api_keys_dir=keys)
    command = ("up", "models.yaml", "--port", str(port))
    with running_process(ULLAGE, env, *command, cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=KEYS["a"], max_retries=0, timeout=60) as client:
        yield client


def asked(client: openai.OpenAI, question: Any = QUESTION, **more: Any) -> Response:
    found = client.responses.create(model="guide", input=question, temperature=0, **more)
    assert isinstance(found, Response)
    return found


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    response = asked(client)
    assert response.output_text.startswith(ANSWER)
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    # What the client was lenient with would fail here.
    Response.model_validate(response.model_dump())


def test_a_stream_says_the_same_and_ends_with_the_response(client: openai.OpenAI) -> None:
    whole = asked(client)
    with client.responses.stream(model="guide", input=QUESTION, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == whole.output_text
    assert events[-1].type == "response.completed"
    assert client.responses.retrieve(final.id).output_text == whole.output_text


def test_an_answer_cut_short_is_incomplete(client: openai.OpenAI) -> None:
    response = asked(client, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 3


def test_a_conversation_goes_on_and_its_prompt_is_cached(client: openai.OpenAI) -> None:
    first = asked(client)
    second = asked(client, "And what is a pool?", previous_response_id=first.id)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    items = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.type for item in items] == ["message"] * 3
    assert items[1].to_dict() == first.output[0].to_dict()
    by_hand = asked(
        client,
        [
            {"role": "user", "content": QUESTION},
            *(item.to_dict() for item in first.output),
            {"role": "user", "content": "And what is a pool?"},
        ],
        store=False,
    )
    assert by_hand.usage is not None
    assert by_hand.usage.input_tokens == second.usage.input_tokens
    assert by_hand.output_text == second.output_text


def test_stored_responses_are_retrieved_and_deleted(client: openai.OpenAI, url: str) -> None:
    response = asked(client, metadata={"case": "7"})
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
    with openai.OpenAI(base_url=url, api_key=KEYS["b"], max_retries=0) as stranger:
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.delete(response.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(response.id)
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.retrieve(response.id)
    assert gone.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as lost:
        asked(client, previous_response_id=response.id)
    assert lost.value.code == "previous_response_not_found"


class Verdict(BaseModel):
    sure: bool
    reason: str


def test_an_answer_follows_the_schema_of_a_class(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model="guide", input=QUESTION, text_format=Verdict, max_output_tokens=200, temperature=0
    )
    assert isinstance(parsed.output_parsed, Verdict)
    with client.responses.stream(
        model="guide", input=QUESTION, text_format=Verdict, max_output_tokens=200, temperature=0
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_json_mode_gives_an_object(client: openai.OpenAI) -> None:
    response = asked(client, text={"format": {"type": "json_object"}}, max_output_tokens=200)
    if response.status == "completed":
        assert isinstance(json.loads(response.output_text), dict)
    else:
        assert response.output_text.startswith("{")


def test_log_probabilities_come_with_every_token(client: openai.OpenAI) -> None:
    response = asked(
        client, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=4
    )
    (message,) = response.output
    assert message.type == "message"
    (part,) = message.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert len(part.logprobs) == 4
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)
    assert b"".join(bytes(t.bytes) for t in part.logprobs).decode() == response.output_text


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]


TOOL = cast(
    "FunctionToolParam",
    {"type": "function", **openai.pydantic_function_tool(Weather)["function"]},
)


def test_functions_are_called_and_their_outputs_taken(client: openai.OpenAI) -> None:
    first = client.responses.parse(
        model="guide",
        input="What is the weather in Oslo?",
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    (call,) = first.output
    assert call.type == "function_call"
    assert call.name == "Weather"
    assert json.loads(call.arguments)["city"] in {"Oslo", "Rome"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    second = asked(client, [output], previous_response_id=first.id, tools=[TOOL])
    assert second.status == "completed"
    assert [item.type for item in client.responses.input_items.list(second.id, order="asc")] == [
        "message",
        "function_call",
        "function_call_output",
    ]


def test_calls_stream_piece_by_piece(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="guide",
        input="What is the weather in Oslo?",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "Weather"},
        parallel_tool_calls=False,
        temperature=0,
    ) as stream:
        deltas = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    (call,) = final.output
    assert call.type == "function_call"
    assert len(deltas) > 1
    assert "".join(deltas) == call.arguments


def test_a_stream_that_is_closed_early_leaves_the_model_free(client: openai.OpenAI) -> None:
    for _ in range(3):
        with client.responses.create(model="guide", input=QUESTION, stream=True) as stream:
            next(iter(stream))
    assert asked(client.with_options(timeout=20), max_output_tokens=2).usage is not None


def test_what_cannot_be_honoured_is_the_clients_own_exception(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        asked(client, tools=[{"type": "web_search"}])
    assert refused.value.param == "tools[0].type"
    with pytest.raises(openai.BadRequestError) as background:
        asked(client, background=True)
    assert background.value.param == "background"
    with pytest.raises(openai.BadRequestError) as schema:
        asked(client, text={"format": {"type": "json_schema", "name": "x", "schema": {"$ref": 1}}})
    assert schema.value.param == "text.format"
