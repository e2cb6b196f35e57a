"""The budget's promises, over histories nobody thought of."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.http.bucket import MINUTE, Bucket

limits = st.integers(1, 10_000)
pauses = st.floats(0, 90)
TINY = 1e-3


@given(limits, st.lists(st.tuples(pauses, st.integers(1, 12_000)), max_size=60))
def test_no_window_sees_more_than_a_full_budget_and_what_came_back_in_it(
    limit: int, history: list[tuple[float, int]]
) -> None:
    bucket, now = Bucket(), 1000.0
    taken: list[tuple[float, int]] = []
    for pause, amount in history:
        now += pause
        if bucket.wait(limit, amount, now) == 0:
            bucket.charge(limit, amount, now)
            taken.append((now, amount))
    for first, (start, _) in enumerate(taken):
        total = 0.0
        for end, amount in taken[first:]:
            total += amount
            assert total <= limit * (1 + (end - start) / MINUTE) + TINY


@given(limits, st.lists(st.tuples(pauses, st.integers(1, 12_000)), max_size=30), st.data())
def test_who_waits_as_long_as_told_gets_in_and_not_much_earlier(
    limit: int, history: list[tuple[float, int]], data: st.DataObject
) -> None:
    bucket, now = Bucket(), 0.0
    for pause, amount in history:
        now += pause
        bucket.charge(limit, amount, now)
    amount = data.draw(st.integers(1, limit))
    wait = bucket.wait(limit, amount, now)
    assert bucket.wait(limit, amount, now + wait) < TINY
    if wait > TINY:
        assert bucket.wait(limit, amount, now + wait - TINY) > 0


@given(limits, st.integers(1, 20_000))
def test_only_what_exceeds_the_whole_budget_never_fits(limit: int, amount: int) -> None:
    assert (Bucket().wait(limit, amount, 0) == float("inf")) == (amount > limit)


@dataclass
class Request:
    """One request of a history: when it begins and ends, what was expected and what it took."""

    begin: float
    seconds: float
    estimate: int
    actual: int


requests = st.builds(
    Request, st.floats(0, 300), st.floats(0, 120), st.integers(0, 5_000), st.integers(0, 5_000)
)


@given(limits, st.lists(requests, max_size=20))
def test_settling_never_forgets_what_was_really_used(limit: int, history: list[Request]) -> None:
    events: list[tuple[float, int, Request]] = []
    for request in history:
        events.append((request.begin, 0, request))
        events.append((request.begin + request.seconds, 1, request))
    ours, oracle, now = Bucket(), Bucket(), 0.0
    for now, is_end, request in sorted(events, key=lambda e: e[:2]):
        if is_end:
            ours.settle(limit, request.estimate, request.actual, since=request.begin, now=now)
        else:
            ours.charge(limit, request.estimate, now)
            oracle.charge(limit, request.actual, now)
    assert ours.used(limit, now) >= oracle.used(limit, now) - TINY


def test_an_estimate_that_was_too_high_is_given_back_at_once() -> None:
    bucket = Bucket()
    bucket.charge(60, 50, 0)
    bucket.settle(60, 50, 10, since=0, now=0)
    assert bucket.remaining(60, 0) == 50


def test_what_was_used_beyond_the_budget_is_waited_for() -> None:
    bucket = Bucket()
    bucket.charge(60, 10, 0)
    bucket.settle(60, 10, 90, since=0, now=0)
    assert bucket.remaining(60, 0) == 0
    assert bucket.wait(60, 1, 0) == pytest.approx(31)
    assert bucket.seconds_to_full(60, 0) == pytest.approx(90)


def test_a_higher_limit_gives_the_difference_at_once() -> None:
    bucket = Bucket()
    bucket.charge(10, 10, 0)
    assert bucket.wait(10, 1, 0) == pytest.approx(6)
    assert bucket.remaining(30, 0) == 20
