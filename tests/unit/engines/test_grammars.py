"""Which JSON schemas become grammars, and how the others are refused."""

import json
import time

import pytest

from ullage_runtime.core.domain import Sampling
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.prompting.grammar import gbnf_of_schema, grammar_of

KNOWN = [
    {},
    {"type": "object"},
    {"title": "Only words", "description": "about it"},
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "object", "properties": {"default": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}]},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[a-z]{2,4}$"},
    {"type": "string", "format": "date-time"},
    {"enum": ["a", 1, None]},
    {"const": {"a": [1]}},
    {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    {"type": ["string", "null"]},
    {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
]

UNKNOWN = [
    ({"type": "integer", "minimum": 1}, "minimum"),
    ({"type": "object", "properties": {"a": {"type": "string", "not": {}}}}, "not"),
    ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
    ({"type": "object", "allOf": [{"type": "object"}]}, "allOf"),
    ({"anyOf": [{"type": "string"}], "properties": {}}, "properties"),
    ({"type": ["string", "null"], "maxLength": 3}, "maxLength"),
    ({"type": "string", "format": "email"}, "format"),
    ({"type": "array", "minItems": 2}, "minItems"),
    ({"type": "text"}, "type"),
    ({"type": "string", "maxLength": 100_000}, "maxLength"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "maxLength"),
    ({"type": "string", "pattern": "^a]$"}, "pattern"),
    ({"type": "string", "pattern": "^a{9999}$"}, "pattern"),
    ({"type": "string", "pattern": "^[a$"}, "pattern"),
    ({"type": "string", "pattern": "^[^a]$"}, "pattern"),
    ({"type": "string", "pattern": '^"$'}, "pattern"),
    ({"type": "string", "pattern": "^\\\\d$"}, "pattern"),
    ({"$ref": "https://example.com/a.json"}, "$ref"),
    ({"enum": []}, "enum"),
    ({"enum": ["a", 'a "quoted" one']}, "enum"),
    ({"const": {"a": "two\nlines"}}, "const"),
    ({"type": "object", "properties": {"a\\b": {"type": "null"}}}, "properties"),
]


@pytest.mark.parametrize("schema", KNOWN, ids=json.dumps)
def test_what_the_converter_knows_becomes_a_grammar(schema: object) -> None:
    grammar = gbnf_of_schema(json.dumps(schema))
    assert "root ::=" in grammar
    assert r"[^\"\\]" not in grammar, "a string's characters are no control characters"


@pytest.mark.parametrize(("schema", "keyword"), UNKNOWN, ids=str)
def test_what_it_would_leave_out_is_refused_by_name(schema: object, keyword: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        gbnf_of_schema(json.dumps(schema))
    assert refused.value.details == {"keyword": keyword}
    assert keyword in refused.value.message


def deep(depth: int) -> str:
    return '{"type":"array","items":' * depth + '{"type":"string"}' + "}" * depth


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "true",
        "[]",
        deep(40),
        json.dumps({"enum": ["x" * 70_000]}),
        '{"$ref": "https://example.com/a.json"}',
        '{"$ref": "#/$defs/missing"}',
        '{"$ref": "#"}',
        '{"$ref": 7}',
        '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}',
        json.dumps({"properties": {str(n): {} for n in range(1000)}}),
        '{"$defs": 7}',
        '{"properties": []}',
        '{"type": "object", "properties": {"a": {}}, "required": 7}',
        '{"type": {}}',
        '{"type": [[]]}',
        '{"type": "string", "pattern": 7}',
        '{"type": "string", "pattern": "^*$"}',
        '{"type": "string", "format": []}',
        '{"type": "array", "items": {"type": "string"}, "minItems": true}',
        '{"type": "array", "items": []}',
        '{"const": "\\ud800"}',
    ],
    ids=lambda text: text[:30],
)
def test_absurd_schemas_are_refused_quickly(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidRequest):
        gbnf_of_schema(text)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("grammar", ["", " ", "root ::= " + "(" * 100, "x" * 70_000, "root\0"])
def test_absurd_grammars_are_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest):
        grammar_of(Sampling(grammar=grammar))


def test_no_grammar_is_no_grammar() -> None:
    assert grammar_of(Sampling()) is None
