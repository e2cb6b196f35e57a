"""The ways to say what an answer looks like, and the two that engines know."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.formats import Format, FormattedRequest, format_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
TEXT = json.dumps(SCHEMA)
GBNF = 'root ::= "yes" | "no"'


def formatted(**fields: Any) -> Format:
    return format_of(FormattedRequest.model_validate(fields))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, Format()),
        ({"response_format": None, "grammar": "", "guided_json": None}, Format()),
        ({"response_format": {"type": "text"}}, Format()),
        ({"response_format": {"type": "json_object"}}, Format(json_schema="{}")),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            Format(json_schema=TEXT),
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": SCHEMA},
                }
            },
            Format(json_schema=TEXT),
        ),
        ({"json_schema": SCHEMA}, Format(json_schema=TEXT)),
        ({"guided_json": SCHEMA}, Format(json_schema=TEXT)),
        ({"guided_json": TEXT}, Format(json_schema=TEXT)),
        ({"grammar": GBNF}, Format(grammar=GBNF)),
        ({"guided_grammar": GBNF}, Format(grammar=GBNF)),
        ({"guided_choice": ["yes", "no"]}, Format(grammar=GBNF)),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, Format(json_schema=TEXT)),
        ({"structured_outputs": {"json_object": True}}, Format(json_schema="{}")),
        ({"structured_outputs": {"json_object": False}}, Format()),
        ({"structured_outputs": {"grammar": GBNF}}, Format(grammar=GBNF)),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Format(grammar=GBNF)),
    ],
    ids=str,
)
def test_each_way_becomes_a_grammar_or_a_schema(fields: dict[str, Any], wanted: Format) -> None:
    assert replace(formatted(**fields), param="") == wanted


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}, "grammar": GBNF}, "grammar"),
        ({"guided_json": SCHEMA, "guided_choice": ["a"]}, "guided_choice"),
        (
            {"structured_outputs": {"grammar": GBNF, "choice": ["a"]}},
            "structured_outputs.choice",
        ),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": ["a", ""]}, "guided_choice"),
        ({"guided_choice": ["a"] * 257}, "guided_choice"),
        ({"guided_json": {"enum": [float("inf")]}}, "guided_json"),
        ({"guided_json": {"enum": ["\ud800"]}}, "guided_json"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        formatted(**fields)
    assert refused.value.param == param


def test_a_schema_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}
    with pytest.raises(InvalidRequest, match="no JSON schema"):
        formatted(guided_json=deep)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "yaml"}},
        {"response_format": "json"},
        {"grammar": 7},
        {"grammar": "\ud800"},
        {"guided_choice": "yes"},
        {"structured_outputs": []},
    ],
    ids=str,
)
def test_another_type_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        formatted(**fields)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_the_grammar_of_a_choice_is_one_line_whatever_the_texts(texts: list[str]) -> None:
    try:
        grammar = formatted(guided_choice=texts).grammar
    except ValidationError:
        assert any(0xD800 <= ord(each) < 0xE000 for text in texts for each in text)
        return
    assert grammar is not None
    assert not any(ord(character) < 0x20 for character in grammar)
