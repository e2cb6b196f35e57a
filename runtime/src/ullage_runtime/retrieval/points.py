"""Points as clients send them: checked before they are accepted, for then it is too late."""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ullage_runtime.core.errors import DimensionMismatch, InvalidRequest
from ullage_runtime.core.pooled import TokenVectors
from ullage_runtime.retrieval.stores.port import RESERVED, PointId, Sparse, point_id

MAX_POINTS: Final = 1000
"""Points of one request."""
MAX_SPARSE: Final = 65_536
MAX_PAYLOAD_DEPTH: Final = 32
LARGEST_INTEGER: Final = 1 << 63
LARGEST_NUMBER: Final = float.fromhex("0x1.fffffep+127")
"""Largest of a vector's numbers, which have 32 bits; whatever is larger would be infinite."""


def checked_id(value: object, where: str) -> PointId:
    """Return a point's id, a number or a UUID in its usual spelling; raises InvalidRequest."""
    found = point_id(value)
    if found is None:
        raise InvalidRequest(
            f"{where}: an id must be an integer from 0 to 2**64 - 1 or a UUID, "
            f"not {str(value)[:80]!r}",
            param=where,
        )
    return found


def checked_ids(values: Sequence[object], where: str) -> list[PointId]:
    """Return ids in their order, each once."""
    return list(dict.fromkeys(checked_id(v, f"{where}[{i}]") for i, v in enumerate(values)))


def checked_dense(values: Sequence[float], dimensions: int, where: str) -> tuple[float, ...]:
    """Return a dense vector; raises DimensionMismatch, which names both numbers."""
    if len(values) != dimensions:
        raise DimensionMismatch(
            f"{where} has {len(values)} dimensions; the collection's vectors have {dimensions}",
            param=where,
            details={"expected": dimensions, "got": len(values)},
        )
    _check_numbers(values, where)
    return tuple(values)


def checked_sparse(indices: Sequence[int], values: Sequence[float], where: str) -> Sparse:
    """Return a sparse vector in the order of its dimensions."""
    if len(indices) != len(values):
        raise InvalidRequest(
            f"{where} has {len(indices)} indices and {len(values)} values", param=where
        )
    if len(indices) > MAX_SPARSE:
        raise InvalidRequest(f"{where}: at most {MAX_SPARSE} indices are allowed", param=where)
    if not all(0 <= index < 1 << 32 for index in indices) or len(set(indices)) < len(indices):
        raise InvalidRequest(
            f"{where}.indices must be distinct integers from 0 to 2**32 - 1", param=where
        )
    _check_numbers(values, where)
    pairs = sorted(zip(indices, values, strict=True))
    return Sparse(tuple(index for index, _ in pairs), tuple(value for _, value in pairs))


def _check_numbers(values: Sequence[float], where: str) -> None:
    # A sum is finite only where all that is summed is, and only then are there least and largest.
    are_finite = not values or (
        math.isfinite(sum(values))
        and min(values) >= -LARGEST_NUMBER
        and max(values) <= LARGEST_NUMBER
    )
    if not are_finite:
        raise InvalidRequest(f"{where} has values that are not finite in 32 bits", param=where)


def checked_tokens(rows: Sequence[Sequence[float]], width: int, where: str) -> TokenVectors:
    """Return the vectors of a text's tokens; raises DimensionMismatch."""
    if not rows:
        raise InvalidRequest(f"{where} has no vectors; leave it out", param=where)
    checked = [checked_dense(row, width, f"{where}[{index}]") for index, row in enumerate(rows)]
    return TokenVectors(b"".join(array("f", row).tobytes() for row in checked), width)


def checked_payload(payload: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a payload; raises InvalidRequest for what no store can keep."""
    taken = sorted(RESERVED & set(payload))
    if taken:
        raise InvalidRequest(f"{where}.{taken[0]} is a name that Ullage uses", param=where)
    _check_value(payload, where, 0)
    return dict(payload)


def _check_value(value: object, where: str, depth: int) -> None:
    if depth > MAX_PAYLOAD_DEPTH:
        raise InvalidRequest(
            f"{where} is nested more than {MAX_PAYLOAD_DEPTH} levels deep", param=where
        )
    if isinstance(value, Mapping):
        for each in value.values():
            _check_value(each, where, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check_value(each, where, depth + 1)
    elif isinstance(value, int) and not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
        raise InvalidRequest(f"{where}: {value} is no 64-bit integer; send a string", param=where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{where} has a number that is not finite", param=where)


def checked_filter(where: dict[str, Any]) -> dict[str, Any]:
    """Return a filter; raises ValueError for a number that JSON cannot say.

    It would be left out on its way to the store, and a filter without a bound finds everything.
    """
    left: list[object] = [where]
    while left:
        match left.pop():
            case Mapping() as members:
                left += members.values()
            case list() as items:
                left += items
            case float() as number if not math.isfinite(number):
                raise ValueError("has a number that is not finite")
            case _:
                pass
    return where


def shown_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload without the fields that are ours."""
    return {name: value for name, value in payload.items() if name not in RESERVED}
