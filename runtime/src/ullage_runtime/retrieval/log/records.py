"""One accepted mutation: the whole state that some points have from then on.

A deletion is the state of a tombstone; a partial update is written as what it comes to. So a record
means the same whatever was applied before it, and applying it twice, late or out of order does no
harm.
"""

import dataclasses
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from ullage_runtime.core.pooled import TokenVectors
from ullage_runtime.retrieval.making import Making
from ullage_runtime.retrieval.stores.port import DELETED, Payload, Point, PointId, Sparse

_FORMAT: Final = 1
_WITH_MAKING: Final = 2
"""Records that say what their vectors were made with."""


@dataclass(frozen=True, slots=True)
class Record:
    """A mutation with its place in the order of all."""

    version: int
    points: tuple[Point, ...]
    made_with: Making | None = None
    """What their vectors were made with; None: the same as all others at that time."""


def tombstone(point_id: PointId) -> Point:
    """Return what is written where a point was."""
    return Point(point_id, {DELETED: True})


def with_payload(point: Point, changes: Payload, *, replace: bool = False) -> Point:
    """Return a point with fields of its payload set, or with another payload altogether."""
    kept: Mapping[str, Any] = {} if replace else point.payload
    return dataclasses.replace(point, payload={**kept, **changes})


def encoded(points: Sequence[Point], made_with: Making | None = None) -> bytes:
    """Return points as the log keeps them."""
    plain = [_plain(point) for point in points]
    if made_with is None:
        return bytes(msgpack.packb([_FORMAT, plain]))
    return bytes(msgpack.packb([_WITH_MAKING, plain, made_with.to_json()]))


def decoded(version: int, body: bytes) -> Record:
    """Return a record of the log."""
    number, points, *rest = msgpack.unpackb(body)
    if number not in {_FORMAT, _WITH_MAKING}:
        raise ValueError(
            f"the log has records of format {number}; this release reads up to {_WITH_MAKING}"
        )
    made_with = Making.of(rest[0]) if rest else None
    return Record(version, tuple(_point(*each) for each in points), made_with)


def _plain(point: Point) -> list[Any]:
    dense = None if point.dense is None else array("f", point.dense).tobytes()
    sparse = point.sparse and [list(point.sparse.indices), list(point.sparse.values)]
    plain = [point.id, dict(point.payload), dense, sparse]
    # Left out where there are none: earlier releases read four.
    return plain if point.colbert is None else [*plain, dataclasses.astuple(point.colbert)]


def _point(
    point_id: PointId,
    payload: dict[str, Any],
    dense: bytes | None,
    sparse: tuple[list[int], list[float]] | None,
    colbert: tuple[bytes, int] | None = None,
) -> Point:
    numbers = None
    if dense is not None:
        numbers = array("f")
        numbers.frombytes(dense)
    return Point(
        point_id,
        payload,
        None if numbers is None else tuple(numbers),
        None if sparse is None else Sparse(tuple(sparse[0]), tuple(sparse[1])),
        None if colbert is None else TokenVectors(*colbert),
    )
