"""Tools, reasoning and hostile templates through OpenAI's own client, against a real process."""

import json
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from tests.support import chat_templates
from tests.support.gguf_models import GUIDE, with_template, write_script
from tests.support.processes import (
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
    wait_until_answers,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["model", "pool"]},
        "replicas": {"type": "integer"},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "describe", "description": "Describes.", "parameters": SCHEMA},
    },
    {"type": "function", "function": {"name": "nothing", "parameters": None}},
]
NAMED: Any = {"type": "function", "function": {"name": "describe"}}
MESSAGES: Any = [{"role": "user", "content": "What is Ullage?"}]
HOSTILE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("up")
    with_template(GUIDE, folder / "hermes.gguf", chat_templates.HERMES)
    with_template(GUIDE, folder / "hostile.gguf", HOSTILE)
    write_script(
        folder / "thinker.gguf",
        ["Hm", ".</think>", "\n\nYes", "!"],
        chat_templates.OPENED,
        after=">",
    )
    names = ("hermes", "hostile", "thinker")
    documents = [manifest(name, f"file:{name}.gguf") for name in names]
    (folder / "models.yaml").write_text("---\n".join(documents))
    port = free_port()
    command = ("up", "models.yaml", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=60) as client:
            yield client


def asked(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(
        **{
            "model": "hermes",
            "messages": MESSAGES,
            "tools": TOOLS,
            "temperature": 0,
            "max_tokens": 300,
            "parallel_tool_calls": False,
            **fields,
        }
    )


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_must_be_made_is_valid_whole_and_streamed(
    client: openai.OpenAI, choice: Any
) -> None:
    (whole,) = asked(client, tool_choice=choice).choices
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls
    assert call.function.name in {"describe", "nothing"}
    arguments = json.loads(call.function.arguments)
    jsonschema.validate(
        arguments, SCHEMA if call.function.name == "describe" else {"maxProperties": 0}
    )

    first, *rest, end = asked(client, tool_choice=choice, stream=True)
    assert first.choices[0].delta.role == "assistant"
    assert end.choices[0].finish_reason == "tool_calls"
    deltas = [call for chunk in rest for call in chunk.choices[0].delta.tool_calls or []]
    assert [d.function.name for d in deltas if d.id] == [call.function.name]
    assert "".join(d.function.arguments for d in deltas) == call.function.arguments
    assert len(deltas) > 1, "arguments come in parts"


def test_the_clients_own_accumulator_takes_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="hermes",
        messages=MESSAGES,
        tools=TOOLS,
        tool_choice=NAMED,
        temperature=0,
        max_tokens=300,
    ) as stream:
        final = stream.get_final_completion()
    (call, *_) = final.choices[0].message.tool_calls or []
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_a_conversation_goes_on_with_a_tools_result(client: openai.OpenAI) -> None:
    (choice,) = asked(client, tool_choice=NAMED).choices
    (call,) = choice.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "A pool of pods."}
    messages = [*MESSAGES, choice.message, result]
    answer = asked(client, messages=messages, tool_choice="none", max_tokens=8)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_reasoning_is_apart_from_content(client: openai.OpenAI) -> None:
    answer = asked(client, model="thinker", tools=None)
    message = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm.", "Yes!")
    details = answer.usage.completion_tokens_details
    assert details.reasoning_tokens == 2
    silent = asked(client, model="thinker", tools=None, reasoning_effort="none", max_tokens=3)
    assert not hasattr(silent.choices[0].message, "reasoning_content")


def test_a_hostile_template_is_refused_and_other_requests_go_on(client: openai.OpenAI) -> None:
    began = time.monotonic()
    with pytest.raises(openai.BadRequestError) as refused:
        asked(client, model="hostile", tools=None)
    assert refused.value.code == "invalid_template"
    assert time.monotonic() - began < 20, "two seconds, on a machine that may be busy"
    with pytest.raises(openai.BadRequestError):
        asked(client, model="hostile", tools=None)
    done = client.completions.create(model="hostile", prompt="Ullage is", max_tokens=4)
    assert done.choices[0].text
    assert asked(client, tools=None, max_tokens=4).choices[0].message.content
