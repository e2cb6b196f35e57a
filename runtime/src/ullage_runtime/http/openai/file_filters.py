"""Filters of OpenAI's file search, in Qdrant's language."""

from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.core.errors import InvalidRequest

MAX_DEPTH: Final = 8

_RANGES: Final = ("gt", "gte", "lt", "lte")
_AT: Final = "tools.filters"


def filter_of(given: object, depth: int = 0) -> dict[str, Any]:
    """Return the filter; raises InvalidRequest."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{_AT}: more than {MAX_DEPTH} filters within each other", param=_AT)
    match given:
        case {"type": "and" | "or" as kind, "filters": [_, *_] as filters}:
            return {
                "must" if kind == "and" else "should": [filter_of(f, depth + 1) for f in filters]
            }
        case {"type": str(kind), "key": str(key), "value": value}:
            return _compared(kind, key, value)
        case _:
            raise _unknown(given)


def _compared(kind: str, key: str, value: object) -> dict[str, Any]:
    if kind in _RANGES and isinstance(value, int | float) and not isinstance(value, bool):
        return {"must": [{"key": key, "range": {kind: value}}]}
    clause = "must" if kind in {"eq", "in"} else "must_not"
    match kind, value:
        case "eq" | "ne", float() if not float(value).is_integer():
            return {clause: [{"key": key, "range": {"gte": value, "lte": value}}]}
        case "eq" | "ne", str() | int() | float():
            plain = int(value) if isinstance(value, float) else value
            return {clause: [{"key": key, "match": {"value": plain}}]}
        case "in" | "nin", [_, *_]:
            return {clause: [{"key": key, "match": {"any": value}}]}
        case _:
            raise _unknown({"type": kind, "key": key, "value": value})


def _unknown(given: object) -> InvalidRequest:
    kind = given.get("type") if isinstance(given, Mapping) else given
    return InvalidRequest(
        f"{_AT}: {str(kind)[:64]!r} is no filter, or not like this; it must be a comparison such "
        "as {type: eq, key: ..., value: ...}, or {type: and, filters: [...]}",
        param=_AT,
    )
