"""One accepted mutation: the whole state that some points have from then on.

A deletion is the state of a tombstone; a partial update is written as what it comes to. So a record
means the same whatever was applied before it, and applying it twice, late or out of order does no
harm.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from ullage_runtime.retrieval.stores.port import DELETED, Payload, Point, PointId, Sparse

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """A mutation with its place in the order of all."""

    version: int
    points: tuple[Point, ...]


def tombstone(point_id: PointId) -> Point:
    """Return what is written where a point was."""
    return Point(point_id, {DELETED: True})


def with_payload(point: Point, changes: Payload, *, replace: bool = False) -> Point:
    """Return a point with fields of its payload set, or with another payload altogether."""
    kept: Mapping[str, Any] = {} if replace else point.payload
    return Point(point.id, {**kept, **changes}, point.dense, point.sparse)


def encoded(points: Sequence[Point]) -> bytes:
    """Return points as the log keeps them."""
    return bytes(msgpack.packb([_FORMAT, [_plain(point) for point in points]]))


def decoded(body: bytes) -> tuple[Point, ...]:
    """Return points of the log."""
    version, points = msgpack.unpackb(body)
    if version != _FORMAT:
        raise ValueError(f"the log has records of format {version}; this release reads {_FORMAT}")
    return tuple(_point(*each) for each in points)


def _plain(point: Point) -> list[Any]:
    dense = None if point.dense is None else array("f", point.dense).tobytes()
    sparse = point.sparse and [list(point.sparse.indices), list(point.sparse.values)]
    return [point.id, dict(point.payload), dense, sparse]


def _point(
    point_id: PointId,
    payload: dict[str, Any],
    dense: bytes | None,
    sparse: tuple[list[int], list[float]] | None,
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
    )
