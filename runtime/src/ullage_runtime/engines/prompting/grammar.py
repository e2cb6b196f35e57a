"""Grammars: GBNF as it is, JSON schemas through the converter that comes with llama-cpp-python.

That converter leaves out, silently, what it does not know; an answer would then break a promise.
So a schema is checked first against what the converter honours in each place, and a keyword that it
would leave out is refused by name. What is large or deep is refused as well: the converter and the
parser recurse, and unroll repetitions.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.core.domain import Sampling
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.llamacpp.package import bundled
from ullage_runtime.engines.prompting.patterns import MAX_REPETITIONS, complaint_of

MAX_GRAMMAR_BYTES: Final = 64 << 10
MAX_CONVERTED_BYTES: Final = 512 << 10
MAX_NESTING: Final = 64
MAX_DEPTH: Final = 24

_ANNOTATIONS: Final = frozenset(
    (
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$defs", "definitions", "strict"),
    )
)
_TYPES: Final = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_FORMATS: Final = frozenset(
    ("date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5")
)
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength")

_Schema = Mapping[str, Any]
_Form = tuple[tuple[str, ...], tuple[str | None, ...] | None, frozenset[str]]

_IN_STRINGS: Final = r'[^"\\\x00-\x1F\x7F]'
_UNIONS: Final = frozenset(("$ref", "oneOf", "anyOf"))
_STRING: Final = frozenset(("type", "minLength", "maxLength"))


def _form(marks: str, kind: str | None, read: str) -> _Form:
    kinds = None if kind is None else (None, kind)
    return tuple(marks.split()), kinds, frozenset(read.split())


_FORMS: Final = (
    _form("$ref", None, "$ref"),
    _form("oneOf", None, "oneOf"),
    _form("anyOf", None, "anyOf"),
    _form("const", None, "const type"),
    _form("enum", None, "enum type"),
    _form(
        "properties additionalProperties",
        "object",
        "type properties required additionalProperties",
    ),
    _form("prefixItems", "array", "type prefixItems"),
    _form("items", "array", "type items minItems maxItems"),
    _form("pattern", "string", "type pattern"),
    _form("format", "string", "type format"),
)
"""Forms of a schema in the converter's own order: what marks one, for which types (None: any, and a
type may be missing), and which keywords it then reads."""

HONOURED: Final = frozenset(
    (*_STRING, *(keyword for _, _, read in _FORMS for keyword in read), "$defs")
)
"""Every keyword that some form of a schema may use."""


def grammar_of(sampling: Sampling) -> str | None:
    """Return the GBNF that an answer must follow, or None; raises InvalidRequest."""
    try:
        if sampling.grammar is not None:
            return _checked(sampling.grammar)
        if sampling.json_schema is not None:
            return gbnf_of_schema(sampling.json_schema)
    except InvalidRequest as error:
        error.param = sampling.formatted_by
        raise
    return None


def _checked(grammar: str) -> str:
    if len(grammar.encode()) > MAX_GRAMMAR_BYTES:
        raise _refused(f"a grammar may have {MAX_GRAMMAR_BYTES} bytes")
    depth = deepest = 0
    for character in grammar:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING or not grammar.strip() or "\0" in grammar:
        raise _refused(f"a grammar needs rules, nested {MAX_NESTING} deep at most")
    return grammar


def gbnf_of_schema(text: str) -> str:
    """Return the GBNF for a JSON schema; raises InvalidRequest that names what is not known."""
    if len(text.encode()) > MAX_GRAMMAR_BYTES:
        raise _refused(f"a JSON schema may have {MAX_GRAMMAR_BYTES} bytes")
    try:
        schema = json.loads(text)
        # JSON can spell halves of characters, which no answer can have.
        json.dumps(schema, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _refused(f"the JSON schema is no JSON: {error}") from error
    cleaned = _rooted(_cleaned(schema, "schema", 0)) or {"type": "object"}
    try:
        gbnf = str(bundled("llama_grammar").json_schema_to_gbnf(json.dumps(cleaned)))
    except (AssertionError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise _refused(f"the JSON schema cannot be converted: {error}") from error
    # The converter's own rules let control characters and quotes into strings.
    for rule, loose in (("char", r'[^"\\]'), ("dot", r"[^\x0A\x0D]")):
        gbnf = gbnf.replace(f"{rule} ::= {loose}", f"{rule} ::= {_IN_STRINGS}")
    if len(gbnf) > MAX_CONVERTED_BYTES:
        raise _refused("the grammar made of the JSON schema is too large")
    return gbnf


def _cleaned(schema: object, at: str, depth: int) -> dict[str, Any]:
    """Return a schema without annotations; raises InvalidRequest for what would be left out."""
    if not isinstance(schema, dict):
        raise _refused(f"{at} must be an object, not {json.dumps(schema)[:40]}")
    if depth > MAX_DEPTH:
        raise _refused(f"the JSON schema is nested more than {MAX_DEPTH} deep")
    kept = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    honoured = _honoured(kept)
    for key in kept:
        if key not in honoured:
            raise _refused(f"the keyword {key!r} at {at} is not supported there", keyword=key)
    _check_values(kept, at)
    result = {key: _below(key, value, f"{at}.{key}", depth + 1) for key, value in kept.items()}
    for key in ("$defs", "definitions"):
        if key in schema:
            result[key] = _each(schema[key], f"{at}.{key}", depth + 1)
    return result


def loosened(schema: object, depth: int = 0) -> dict[str, Any]:
    """Return what a grammar can hold of a schema; the rest of it is left out."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {}
    kept = {k: v for k, v in schema.items() if k not in _ANNOTATIONS and _is_sound(k, v)}
    honoured = _honoured(kept)
    result = {k: _loosened_below(k, v, depth + 1) for k, v in kept.items() if k in honoured}
    for key in ("$defs", "definitions"):
        if isinstance(schema.get(key), dict):
            result[key] = _loosened_below("properties", schema[key], depth + 1)
    return result


def _is_sound(key: str, value: object) -> bool:
    if key in {"anyOf", "oneOf", "prefixItems"}:
        return isinstance(value, list) and bool(value)
    try:
        _check_values({key: value}, key)
    except InvalidRequest:
        return False
    return True


def _loosened_below(key: str, value: object, depth: int) -> object:
    match key, value:
        case "properties", dict():
            return {name: loosened(one, depth) for name, one in value.items()}
        case (("anyOf" | "oneOf" | "prefixItems"), list()):
            return [loosened(one, depth) for one in value]
        case (("items" | "additionalProperties"), dict()):
            return loosened(value, depth)
        case _:
            return value


def _rooted(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose root is no reference, which the converter would not look behind."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        if reference is None:
            return schema
        target: Any = schema
        for name in reference.split("/")[1:]:
            target = target.get(name) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            break
        definitions: dict[str, Any] = {
            key: schema[key] for key in ("$defs", "definitions") if key in schema
        }
        schema = definitions | target
    raise _refused("the JSON schema's $ref leads nowhere", keyword="$ref")


def _honoured(schema: _Schema) -> frozenset[str]:
    """Return the keywords that the converter reads of a schema of this form."""
    kind = schema.get("type")
    if isinstance(kind, list) and not _UNIONS & schema.keys():
        return frozenset(("type",))
    for marks, kinds, read in _FORMS:
        if any(mark in schema for mark in marks) and (kinds is None or kind in kinds):
            return read
    return _STRING if kind == "string" else frozenset(("type",))


def _check_values(schema: _Schema, at: str) -> None:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in _TYPES:
            raise _refused(f"the type {kind!r} at {at} is not one of JSON's", keyword="type")
    if "format" in schema and str(schema["format"]) not in _FORMATS:
        raise _refused(f"the format {schema['format']!r} at {at} is not known", keyword="format")
    if not str(schema.get("$ref", "#/")).startswith("#/"):
        raise _refused(f"$ref at {at} must begin with #/", keyword="$ref")
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        raise _refused(f"enum at {at} must be a list of values", keyword="enum")
    # The converter does not escape what JSON has escaped: the answer would be no JSON.
    for key in ("enum", "const", "properties"):
        value = schema.get(key)
        if _has_escapes(list(value) if key == "properties" and isinstance(value, dict) else value):
            raise _refused(f"{key} at {at} has quotes, backslashes or controls", keyword=key)
    complaint = complaint_of(schema["pattern"]) if "pattern" in schema else None
    if complaint is not None:
        raise _refused(f"pattern at {at} {complaint}", keyword="pattern")
    _check_counts(schema, at)


def _has_escapes(value: object) -> bool:
    return "\\" in json.dumps(value, ensure_ascii=False)


def _check_counts(schema: _Schema, at: str) -> None:
    for key in _COUNTS:
        count = schema.get(key, 0)
        if type(count) is not int or not 0 <= count <= MAX_REPETITIONS:
            raise _refused(f"{key} at {at} must be 0 to {MAX_REPETITIONS}", keyword=key)
    for least, most in (_COUNTS[:2], _COUNTS[2:]):
        if schema.get(most, MAX_REPETITIONS) < schema.get(least, 0):
            raise _refused(f"{most} at {at} is below {least}", keyword=most)


def _below(key: str, value: object, at: str, depth: int) -> object:
    """Return a keyword's value with the schemas in it cleaned."""
    match key:
        case "properties":
            return _each(value, at, depth)
        case "anyOf" | "oneOf" | "prefixItems":
            if not isinstance(value, list) or not value:
                raise _refused(f"{at} must be a list of schemas", keyword=key)
            return [_cleaned(one, f"{at}[{index}]", depth) for index, one in enumerate(value)]
        case "items":
            return _cleaned(value, at, depth)
        case "additionalProperties" if not isinstance(value, bool):
            return _cleaned(value, at, depth)
        case _:
            return value


def _each(value: object, at: str, depth: int) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_REPETITIONS:
        raise _refused(f"{at} must be an object of {MAX_REPETITIONS} members at most")
    return {name: _cleaned(one, f"{at}.{name}", depth) for name, one in value.items()}


def _refused(message: str, *, keyword: str | None = None) -> InvalidRequest:
    details = {} if keyword is None else {"keyword": keyword}
    return InvalidRequest(message, param="response_format", details=details)
