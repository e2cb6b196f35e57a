"""Whatever differs between two collections is found and named."""

import itertools
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.reindexing.joining import (
    Difference,
    Join,
    PointId,
    Side,
    is_consistent,
    order,
)
from ullage_runtime.core.reindexing.ranges import LEAST_POINTS, MOST_RANGES, Divider, IdRange

IDS = st.one_of(st.integers(0, 30), st.integers(0, 30).map(lambda n: str(UUID(int=n))))
COLLECTIONS = st.dictionaries(IDS, st.integers(0, 5), max_size=40)


def joined(source: dict[PointId, int], target: dict[PointId, int], page: int) -> Join:
    join = Join()
    sides = {Side.SOURCE: source, Side.TARGET: target}
    left = {
        side: sorted(points.items(), key=lambda p: order(p[0])) for side, points in sides.items()
    }
    while (side := join.wants) is not None:
        points, left[side] = left[side][:page], left[side][page:]
        join.add(side, points, is_last=not left[side])
    return join


@given(COLLECTIONS, COLLECTIONS, st.integers(1, 7))
def test_a_merge_finds_exactly_what_differs(
    source: dict[PointId, int], target: dict[PointId, int], page: int
) -> None:
    join = joined(source, target, page)
    wanted = [
        Difference(each, source.get(each), target.get(each))
        for each in sorted(source.keys() | target.keys(), key=order)
        if source.get(each) != target.get(each)
    ]
    assert sorted(join.differences, key=lambda d: order(d.id)) == wanted
    assert join.compared == len(source.keys() & target.keys())


def test_what_counts_do_not_show_is_named() -> None:
    source: dict[PointId, int] = {1: 4, 2: 5, 3: 6}
    target: dict[PointId, int] = {1: 4, 2: 3, 7: 2}
    assert len(source) == len(target)
    assert [str(each) for each in joined(source, target, 2).differences] == [
        "point 2 has version 3, 5 in the source",
        "point 3 is missing, version 6 in the source",
        "point 7 is there and is not in the source (version 2)",
    ]
    foreign = joined({}, {9: 0}, 2).differences
    assert str(foreign[0]) == "point 9 is there and is not in the source (a foreign writer's)"


@pytest.mark.parametrize(
    ("before", "between", "after", "fits"),
    [
        (3, 3, 3, True),
        (3, 4, 5, True),
        (3, 5, 5, True),
        (3, 2, 3, False),
        (3, None, 3, False),
        (None, 3, None, False),
        (3, None, None, True),
        (None, 4, 4, True),
        (None, 4, 5, False),
    ],
)
def test_a_point_that_is_being_written_agrees_if_it_may_have_been_so_between_two_looks(
    before: int | None, between: int | None, after: int | None, *, fits: bool
) -> None:
    assert is_consistent(before, between, after) is fits


@given(st.integers(0, 9 * LEAST_POINTS), st.integers(1, 5000), st.sampled_from((64, LEAST_POINTS)))
def test_ranges_hold_every_id_once_and_are_open_at_both_ends(
    count: int, page: int, least: int
) -> None:
    divider = Divider(count, least)
    for first in range(0, count, page):
        divider.add(range(first, min(count, first + page)))
    ranges = divider.ranges()
    assert ranges[0].first is None
    assert ranges[-1].last is None
    size = least * max(1, -(-count // (least * MOST_RANGES)))
    assert len(ranges) == max(1, -(-count // size))
    for one, following in itertools.pairwise(ranges):
        assert isinstance(one.last, int)
        assert following.first == one.last + 1


def test_a_collection_that_is_larger_than_foreseen_has_no_more_ranges_than_there_may_be() -> None:
    divider = Divider(10)
    divider.add(range(LEAST_POINTS * MOST_RANGES * 2))
    assert len(divider.ranges()) == MOST_RANGES
    assert Divider(0).ranges() == [IdRange(None, None)]
