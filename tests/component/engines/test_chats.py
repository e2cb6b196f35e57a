"""Tools and reasoning on real engines: models that say what a script has, and a trained one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support import chat_templates
from tests.support.gguf_models import GUIDE, with_template, write_script
from tests.support.workers import chunks_of, loaded
from ullage_runtime.core.domain import (
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    Sampling,
    Tool,
    ToolCall,
    Tools,
)
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.worker.engine import WorkerEngine

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
LIST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "of": {"type": "array", "items": {"$ref": "#/$defs/Item"}, "minItems": 1, "maxItems": 2}
    },
    "required": ["of"],
    "$defs": {"Item": {"type": "object", "properties": {"ok": {"type": "boolean"}}}},
}
TOOL = Tool("get_weather", "Weather of a city.", json.dumps(WEATHER))
OTHER = Tool("make-list", "", json.dumps(LIST))
AUTO = Tools((TOOL, OTHER))
FORCED = Tools((TOOL, OTHER), required=True, parallel=False)
ROME = [("get_weather", {"city": "Rome"})]
CALL = ['\n{"name": "get', '_weather", "argu', 'ments": {"city": "Ro', 'me"}', "}\n"]
SCHEMAS = {"get_weather": WEATHER, "make-list": LIST}


def chat(tools: Tools | None = AUTO, **fields: Any) -> GenerateRequest:
    given = {"messages": (Message("user", "Hi"),), **fields}
    sampling = Sampling(temperature=0, max_tokens=300, json_schema=given.pop("schema", None))
    return GenerateRequest("r", tools=tools, sampling=sampling, **given)


def calls_of(chunks: Sequence[Chunk]) -> list[tuple[str, Any]]:
    calls: dict[int, tuple[str, str]] = {}
    for delta in (delta for chunk in chunks for delta in chunk.calls):
        name, arguments = calls.get(delta.index, (delta.name or "", ""))
        calls[delta.index] = (name, arguments + delta.arguments)
    return [(name, json.loads(arguments)) for name, arguments in calls.values()]


def text_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def thoughts_of(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.reasoning for chunk in chunks)


async def said(path: Path, *requests: GenerateRequest) -> list[list[Chunk]]:
    engine: WorkerEngine = await loaded(path)
    try:
        return [await chunks_of(engine, request) for request in requests]
    finally:
        await engine.unload()


@pytest.mark.parametrize(
    ("template", "pieces", "control"),
    [
        (chat_templates.HERMES, ["<tool_call>", *CALL, "</tool_call>"], []),
        (chat_templates.HERMES, ["<tool_", "call>", *CALL, "</tool_call>"], []),
        (chat_templates.PLAIN, ["<tool_call>", *CALL, "</tool_call>"], []),
        (chat_templates.MISTRAL, ["[TOOL_CALLS]", " [", *CALL, " ]"], ["[TOOL_CALLS]"]),
        (
            chat_templates.LLAMA,
            ["<|python_tag|>", '{"name": "get_weather", "parameters": {"city": "Rome"}}'],
            ["<|python_tag|>"],
        ),
        (
            chat_templates.LLAMA,
            ['{"name": "get', '_weather", "parameters": {"city"', ': "Rome"}', "}"],
            [],
        ),
    ],
)
async def test_calls_are_told_apart_however_a_model_writes_them(
    tmp_path: Path, template: str, pieces: list[str], control: list[str]
) -> None:
    path = write_script(tmp_path / "m.gguf", pieces, template, control=control)
    called, plain = await said(path, chat(), chat(tools=None))
    assert calls_of(called) == ROME
    assert text_of(called) == ""
    assert called[-1].finish is FinishReason.TOOL_CALLS
    assert calls_of(plain) == []
    assert plain[-1].finish is FinishReason.STOP


async def test_text_before_a_call_is_content_and_arguments_come_as_they_are_made(
    tmp_path: Path,
) -> None:
    pieces = ["Let me", " look.\n", "<tool_call>", *CALL, "</tool_call>"]
    path = write_script(tmp_path / "m.gguf", pieces, chat_templates.HERMES)
    (chunks,) = await said(path, chat())
    assert text_of(chunks) == "Let me look."
    deltas = [delta for chunk in chunks for delta in chunk.calls]
    assert [delta.name for delta in deltas] == ["get_weather", None, None]
    assert [delta.arguments for delta in deltas] == ["", '{"city": "Ro', 'me"}']


async def test_a_call_that_was_begun_freely_follows_its_schema(tmp_path: Path) -> None:
    pieces = ["<tool_call>", '{"name": "get_weather", ', '"arguments": {"city": ', "5", "}}"]
    path = write_script(tmp_path / "m.gguf", pieces, chat_templates.HERMES)
    (chunks,) = await said(path, chat())
    ((name, arguments),) = calls_of(chunks)
    jsonschema.validate(arguments, SCHEMAS[name])


async def test_what_a_call_must_not_be_is_content(tmp_path: Path) -> None:
    pieces = ['{"city": ', '"Rome"', "}"]
    path = write_script(tmp_path / "m.gguf", pieces, chat_templates.LLAMA)
    (chunks,) = await said(path, chat())
    assert text_of(chunks) == '{"city": "Rome"}'
    assert chunks[-1].finish is FinishReason.STOP


@pytest.mark.parametrize("template", ["HERMES", "MISTRAL", "LLAMA", None])
async def test_a_model_that_must_call_makes_calls_by_the_schemas(
    tmp_path: Path, template: str | None
) -> None:
    path = GUIDE
    if template is not None:
        path = with_template(GUIDE, tmp_path / "m.gguf", getattr(chat_templates, template))
    named = Tools((TOOL, OTHER), only="make-list", parallel=False)
    for tools, chunks in zip(
        (FORCED, named), await said(path, chat(FORCED), chat(named)), strict=True
    ):
        ((name, arguments),) = calls_of(chunks)
        jsonschema.validate(arguments, SCHEMAS[name])
        assert tools.only in (None, name)
        assert text_of(chunks) == ""
        assert chunks[-1].finish is FinishReason.TOOL_CALLS


async def test_tools_that_may_be_called_leave_plain_answers_as_they_are(tmp_path: Path) -> None:
    question = (Message("user", "What is Ullage?"),)
    template = (
        chat_templates.HERMES.replace("[{{ m.role }}]", "<|{{ m.role }}|>")
        .replace("[assistant]", "<|end|><|assistant|>")
        .replace("[tools]", "<|system|>")
    )
    path = with_template(GUIDE, tmp_path / "m.gguf", template)
    (chunks,) = await said(path, chat(messages=question))
    assert text_of(chunks).startswith("Ullage is")
    assert calls_of(chunks) == []


async def test_schemas_with_more_than_a_grammar_holds_are_followed_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 3},
            "mail": {"type": "string", "format": "email", "maxLength": 5},
            "quoted": {"enum": ['"']},
        },
        "required": ["n", "mail"],
        "minProperties": 1,
    }
    loose = Tool("f", "", json.dumps(schema))
    strict = Tool("f", "", json.dumps(schema), strict=True)
    engine = await loaded(GUIDE)
    try:
        chunks = await chunks_of(engine, chat(Tools((loose,), required=True, parallel=False)))
        ((_, arguments),) = calls_of(chunks)
        assert isinstance(arguments["n"], int)
        assert len(arguments["mail"]) <= 5
        with pytest.raises(InvalidRequest, match="minProperties") as refused:
            await chunks_of(engine, chat(Tools((TOOL, strict))))
        assert refused.value.param == "tools[1].function.parameters"
        assert refused.value.details == {"keyword": "minProperties"}
    finally:
        await engine.unload()


async def test_calls_and_results_of_earlier_turns_reach_the_template(tmp_path: Path) -> None:
    history = (
        Message("user", "Hi"),
        Message(
            "assistant", "", calls=(ToolCall("call_long_1", "get_weather", '{"city":"Rome"}'),)
        ),
        Message("tool", "Sunny.", call_id="call_long_1"),
    )
    pieces = ["Fine", " weather."]
    for template in (chat_templates.HERMES, chat_templates.MISTRAL, chat_templates.PLAIN):
        path = write_script(tmp_path / "m.gguf", pieces, template)
        (chunks,) = await said(path, chat(messages=history))
        assert text_of(chunks) == "Fine weather."


async def test_reasoning_is_told_apart_and_counted(tmp_path: Path) -> None:
    pieces = ["<think>", "\nHm", ".\n", "</think>", "\n\n", "Yes."]
    path = write_script(
        tmp_path / "m.gguf", pieces, chat_templates.THINKING, control=["<think>", "</think>"]
    )
    (chunks,) = await said(path, chat(tools=None))
    assert (thoughts_of(chunks), text_of(chunks)) == ("Hm.", "Yes.")
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.completion_tokens, usage.reasoning_tokens) == (7, 4)


async def test_a_prompt_may_open_the_reasoning_unless_it_is_told_not_to(tmp_path: Path) -> None:
    path = write_script(
        tmp_path / "m.gguf", ["Hm", ".</think>", "Yes."], chat_templates.OPENED, after=">"
    )
    engine = await loaded(path)
    try:
        (chunks, cut) = [
            await chunks_of(engine, chat(tools=None)),
            await chunks_of(
                engine, chat(tools=None, template_options={"reasoning_effort": "high"})
            ),
        ]
        assert (thoughts_of(chunks), text_of(chunks)) == ("Hm.", "Yes.")
        assert thoughts_of(cut) == "Hm."
        with pytest.raises(InvalidRequest, match="does not read 'thinking'") as refused:
            await chunks_of(engine, chat(template_options={"thinking": True}))
        assert refused.value.param == "chat_template_kwargs"
    finally:
        await engine.unload()
    silent = write_script(tmp_path / "s.gguf", ["Yes", "!"], chat_templates.OPENED)
    for options in ({"enable_thinking": False}, {"reasoning_effort": "none"}):
        (chunks,) = await said(silent, chat(tools=None, template_options=options))
        assert (thoughts_of(chunks), text_of(chunks)) == ("", "Yes!")


async def test_an_effort_that_a_template_does_not_read_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await said(GUIDE, chat(tools=None, template_options={"reasoning_effort": "low"}))
    assert refused.value.param == "reasoning_effort"


@pytest.mark.parametrize("pieces", [["Hm", ".</think>", "Yes."], ["Hm", "."]])
async def test_what_an_answer_must_be_begins_after_the_reasoning(
    tmp_path: Path, pieces: list[str]
) -> None:
    path = write_script(tmp_path / "m.gguf", pieces, chat_templates.OPENED, after=">")
    schema = '{"enum": ["a", "b"]}'
    called, formed = await said(path, chat(FORCED), chat(None, schema=schema))
    assert thoughts_of(called) == thoughts_of(formed) == "Hm."
    ((name, arguments),) = calls_of(called)
    jsonschema.validate(arguments, SCHEMAS[name])
    assert json.loads(text_of(formed)) in {"a", "b"}
