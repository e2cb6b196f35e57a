"""Points are checked before they are accepted."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_api.kinds.vector_collection import SparseType
from ullage_runtime.core.errors import DimensionMismatch, InvalidRequest
from ullage_runtime.retrieval.log.records import (
    Record,
    decoded,
    encoded,
    tombstone,
    with_payload,
)
from ullage_runtime.retrieval.making import Making
from ullage_runtime.retrieval.points import (
    LARGEST_NUMBER,
    checked_dense,
    checked_id,
    checked_ids,
    checked_payload,
    checked_sparse,
)
from ullage_runtime.retrieval.stores.port import Point, Sparse

UUID = "0192f0c1-2c5b-7cc0-8f00-0123456789ab"


def test_a_uuid_is_one_id_however_it_is_spelt() -> None:
    assert checked_ids([UUID.upper(), UUID, UUID.replace("-", "")], "ids") == [UUID]


@pytest.mark.parametrize("value", [-1, 1 << 64, True, 1.0, "x", None, []])
def test_other_ids_are_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match=r"ids\[3\]: an id must be an integer from 0"):
        checked_id(value, "ids[3]")


def test_a_vector_of_another_width_is_refused_with_both_numbers() -> None:
    with pytest.raises(DimensionMismatch, match=r"v has 2 dimensions; the .* have 3") as error:
        checked_dense([1.0, 2.0], 3, "v")
    assert error.value.details == {"expected": 3, "got": 2}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39, -1e39, 1e308])
def test_numbers_that_are_not_finite_in_32_bits_are_refused(bad: float) -> None:
    for vector in ([bad], [bad, bad], [bad, -bad], [1.0, bad, 2.0], [-1.0, bad]):
        with pytest.raises(InvalidRequest, match="v has values that are not finite in 32 bits"):
            checked_dense(vector, len(vector), "v")
    with pytest.raises(InvalidRequest, match="not finite"):
        checked_sparse([1], [bad], "v")


def test_the_largest_numbers_of_32_bits_are_kept() -> None:
    vector = (LARGEST_NUMBER, -LARGEST_NUMBER, LARGEST_NUMBER)
    assert checked_dense(vector, 3, "v") == vector
    assert checked_sparse([], [], "v") == Sparse((), ())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_payload_with_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InvalidRequest, match="not finite"):
        checked_payload({"a": [{"b": bad}]}, "p")


def test_sparse_vectors_are_put_in_order() -> None:
    assert checked_sparse([9, 3], [1.0, 2.0], "v") == Sparse((3, 9), (2.0, 1.0))
    for indices, values in (
        ([1], [1.0, 2.0]),
        ([1, 1], [1.0, 2.0]),
        ([-1], [1.0]),
        ([1 << 32], [1.0]),
    ):
        with pytest.raises(InvalidRequest):
            checked_sparse(indices, values, "v")


def test_payloads_that_no_store_keeps_are_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(40):
        nested = {"a": nested}
    for payload in ({"_v": 1}, {"_deleted": True}, {"n": 1 << 63}, nested):
        with pytest.raises(InvalidRequest):
            checked_payload(payload, "p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
POINTS = st.builds(
    Point,
    st.integers(0, (1 << 64) - 1) | st.uuids().map(str),
    st.dictionaries(st.text(), JSON, max_size=4),
    st.none() | st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(tuple),
    st.none() | st.just(Sparse((1, 1 << 31), (0.5, 2.0))),
)


@given(st.lists(POINTS, max_size=3))
def test_the_log_gives_points_back_as_they_were_accepted(points: list[Point]) -> None:
    assert decoded(7, encoded(points)) == Record(7, tuple(points))
    making = Making("encoder", "r1", SparseType.MODEL)
    assert decoded(7, encoded(points, making)) == Record(7, tuple(points), making)


def test_a_partial_update_is_written_as_what_it_comes_to() -> None:
    point = Point(1, {"a": 1, "b": 2}, (1.0,), Sparse((1,), (1.0,)))
    assert with_payload(point, {"b": 3}) == Point(1, {"a": 1, "b": 3}, point.dense, point.sparse)
    assert with_payload(point, {"c": 3}, replace=True).payload == {"c": 3}
    assert tombstone(1).is_tombstone
    assert tombstone(1).dense is None
