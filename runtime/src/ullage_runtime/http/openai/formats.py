"""What an answer must look like: the field's several ways to ask for a grammar or a JSON schema.

Each becomes one of the two things that engines know. What an engine makes of it, and what of a
schema it refuses, is the engine's to say.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, WithJsonSchema

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.fields import Request, Text, encodable

MAX_CHOICE_TEXTS: Final = 256

Choices = Annotated[
    list[Text],
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "maxItems": MAX_CHOICE_TEXTS,
        }
    ),
]
"""Texts of which the answer is one."""

_ESCAPES: Final = {
    **{chr(code): f"\\x{code:02X}" for code in range(0x20)},
    '"': '\\"',
    "\\": "\\\\",
}


@dataclass(frozen=True, slots=True)
class Format:
    """A form that an answer follows: at most one of grammar and schema is set."""

    grammar: str | None = None
    json_schema: str | None = None
    param: str = ""
    """The parameter that asks for it."""


class JsonSchema(Request):
    """OpenAI's wrapping of a JSON schema."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(Request):
    """OpenAI's `response_format`; a schema beside `json_object` is llama-server's way to say it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class StructuredOutputs(Request):
    """vLLM's `structured_outputs`."""

    json_: dict[str, Any] | Text | None = Field(None, alias="json")
    json_object: bool | None = None
    grammar: Text | None = None
    choice: Choices | None = None


class FormattedRequest(Request):
    """The members of a request that say what its answer looks like."""

    response_format: ResponseFormat | None = None
    grammar: Text | None = None
    """An extension: a GBNF grammar that the answer follows."""
    json_schema: dict[str, Any] | None = None
    """An extension: a JSON schema that the answer follows."""
    guided_json: dict[str, Any] | Text | None = None
    """vLLM's name for the same; it may be JSON text."""
    guided_grammar: Text | None = None
    """vLLM's name for `grammar`."""
    guided_choice: Choices | None = None
    """An extension: texts of which the answer is one."""
    structured_outputs: StructuredOutputs | None = None
    """vLLM's newer name for these."""


def format_of(request: FormattedRequest) -> Format:
    """Return the form a request wants of its answer; raises InvalidRequest when it wants two."""
    asked = list(_asked(request))
    if len(asked) > 1:
        (first, _), (second, _), *_ = asked
        raise InvalidRequest(
            f"{first} and {second} both say what the answer looks like; send one of them",
            param=second,
        )
    return replace(asked[0][1], param=asked[0][0]) if asked else Format()


def _asked(request: FormattedRequest) -> Iterator[tuple[str, Format]]:
    if request.response_format is not None:
        yield from _response_format(request.response_format)
    yield from _grammar("grammar", request.grammar)
    yield from _grammar("guided_grammar", request.guided_grammar)
    yield from _schema("json_schema", request.json_schema)
    yield from _schema("guided_json", request.guided_json)
    yield from _choice("guided_choice", request.guided_choice)
    if request.structured_outputs is not None:
        yield from _structured(request.structured_outputs)


def _response_format(wanted: ResponseFormat) -> Iterator[tuple[str, Format]]:
    match wanted.type:
        case "text":
            return
        case "json_object":
            schema = wanted.schema_
        case "json_schema":
            if wanted.json_schema is None:
                raise InvalidRequest(
                    "response_format of type json_schema needs json_schema, with the schema",
                    param="response_format",
                )
            schema = wanted.json_schema.schema_
    yield from _schema("response_format", schema or {})


def _structured(wanted: StructuredOutputs) -> Iterator[tuple[str, Format]]:
    for name, value in (wanted.model_extra or {}).items():
        if value not in (None, False):
            raise InvalidRequest(
                f"structured_outputs.{name[:40]} is not supported; send json, json_object, grammar "
                "or choice",
                param="structured_outputs",
            )
    yield from _schema("structured_outputs.json", wanted.json_)
    yield from _schema("structured_outputs.json_object", {} if wanted.json_object else None)
    yield from _grammar("structured_outputs.grammar", wanted.grammar)
    yield from _choice("structured_outputs.choice", wanted.choice)


def _grammar(name: str, grammar: str | None) -> Iterator[tuple[str, Format]]:
    # Clients of llama-server send an empty grammar for none.
    if grammar:
        yield name, Format(grammar=grammar)


def _schema(name: str, schema: dict[str, Any] | str | None) -> Iterator[tuple[str, Format]]:
    if schema is None:
        return
    if isinstance(schema, str):
        yield name, Format(json_schema=schema)
        return
    try:
        text = encodable(json.dumps(schema, ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name} is no JSON schema: {error}", param=name) from error
    yield name, Format(json_schema=text)


def _choice(name: str, texts: list[str] | None) -> Iterator[tuple[str, Format]]:
    if texts is None:
        return
    if not 1 <= len(texts) <= MAX_CHOICE_TEXTS or not all(texts):
        raise InvalidRequest(
            f"{name} must have 1 to {MAX_CHOICE_TEXTS} texts, none of them empty", param=name
        )
    yield name, Format(grammar="root ::= " + " | ".join(map(_literal, texts)))


def _literal(text: str) -> str:
    """Return a text as GBNF writes it."""
    return '"' + "".join(_ESCAPES.get(each, each) for each in text) + '"'
