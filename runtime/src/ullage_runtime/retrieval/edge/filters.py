"""Qdrant's filter language, from JSON to the engine's own objects."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import qdrant_edge as edge

from ullage_runtime.retrieval.edge.refusals import Refused

MAX_DEPTH: Final = 16
"""Filters within filters; the engine's own recursion has no bound."""

_CLAUSES: Final = frozenset({"must", "should", "must_not", "min_should"})
_BOUNDS: Final = ("gte", "gt", "lte", "lt")


def filter_of(data: object, depth: int = 0) -> edge.Filter | None:
    """Return the engine's filter; raises Refused, which names what is wrong."""
    if data is None:
        return None
    if depth > MAX_DEPTH:
        raise Refused(f"filter: more than {MAX_DEPTH} filters within each other")
    given = _mapping(data, "filter")
    unknown = sorted(set(given) - _CLAUSES)
    if unknown:
        raise Refused(f"filter: unknown clause {unknown[0]!r}; known are {sorted(_CLAUSES)}")
    return edge.Filter(
        must=_conditions(given.get("must"), depth),
        should=_conditions(given.get("should"), depth),
        must_not=_conditions(given.get("must_not"), depth),
        min_should=_min_should(given.get("min_should"), depth),
    )


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise Refused(f"{what}: must be an object")
    return data


def _conditions(data: object, depth: int) -> list[Any] | None:
    if data is None:
        return None
    listed = data if isinstance(data, list) else [data]
    return [_condition(each, depth) for each in listed]


def _min_should(data: object, depth: int) -> edge.MinShould | None:
    if data is None:
        return None
    given = _mapping(data, "filter.min_should")
    return edge.MinShould(
        conditions=_conditions(given.get("conditions"), depth) or [],
        min_count=int(given.get("min_count", 0)),
    )


def _condition(data: object, depth: int) -> Any:
    given = _mapping(data, "filter: a condition")
    if "key" in given:
        return _field(given)
    if _CLAUSES & set(given):
        return filter_of(given, depth + 1)
    for name, make in _SPECIAL.items():
        if name in given:
            return make(given[name], depth)
    raise Refused(f"filter: unknown condition with {sorted(given)}")


def _nested(data: object, depth: int) -> edge.NestedCondition:
    given = _mapping(data, "filter.nested")
    inner = filter_of(given.get("filter"), depth + 1)
    return edge.NestedCondition(str(given.get("key", "")), inner or edge.Filter())


_SPECIAL: Final[Mapping[str, Callable[[Any, int], Any]]] = {
    "has_id": lambda ids, _: edge.HasIdCondition(set(ids)),
    "is_empty": lambda field, _: edge.IsEmptyCondition(_mapping(field, "is_empty")["key"]),
    "is_null": lambda field, _: edge.IsNullCondition(_mapping(field, "is_null")["key"]),
    "has_vector": lambda name, _: edge.HasVectorCondition(name),
    "nested": _nested,
}


def _field(given: Mapping[str, Any]) -> edge.FieldCondition:
    for name, make in _TESTS.items():
        if given.get(name) is not None:
            return edge.FieldCondition(given["key"], **{name: make(given[name])})
    raise Refused(f"filter: the condition on {given['key']!r} tests nothing")


def _match(data: object) -> Any:
    given = _mapping(data, "filter: match")
    for name, make in _MATCHES.items():
        if name in given:
            return make(given[name])
    raise Refused(f"filter: match must have one of {sorted(_MATCHES)}")


def _range(data: object) -> Any:
    given = _mapping(data, "filter: range")
    bounds = {name: given[name] for name in _BOUNDS if given.get(name) is not None}
    if any(isinstance(bound, str) for bound in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**{name: float(bound) for name, bound in bounds.items()})


def _values_count(data: object) -> edge.ValuesCount:
    given = _mapping(data, "filter: values_count")
    return edge.ValuesCount(**{name: given[name] for name in _BOUNDS if name in given})


def _geo(data: object) -> edge.GeoPoint:
    given = _mapping(data, "filter: a place")
    return edge.GeoPoint(lon=float(given["lon"]), lat=float(given["lat"]))


class _Boolean:
    """True or False for the engine's binding, which takes Python's own for 1 and 0.

    It knows numpy's booleans by the name of their class, and asks for their truth.
    """

    def __init__(self, value: bool) -> None:  # noqa: FBT001 - it is one
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_Boolean.__module__, _Boolean.__name__ = "numpy", "bool_"


def _value(value: Any) -> edge.MatchValue:
    return edge.MatchValue(_Boolean(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]


_MATCHES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "value": _value,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
    "prefix": edge.MatchPrefix,
}
_TESTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "match": _match,
    "range": _range,
    "values_count": _values_count,
    "is_empty": bool,
    "is_null": bool,
    "geo_radius": lambda each: edge.GeoRadius(_geo(each["center"]), float(each["radius"])),
    "geo_bounding_box": lambda each: edge.GeoBoundingBox(
        _geo(each["top_left"]), _geo(each["bottom_right"])
    ),
}
