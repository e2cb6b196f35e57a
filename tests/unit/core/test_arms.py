"""Two revisions side by side: who gets a request, and which differences matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.arms import ENOUGH, Arm, Limits, Share, Tally, breach
from ullage_runtime.core.errors import EngineFailed, InvalidRequest


@given(percent=st.integers(1, 99), count=st.integers(0, 1000))
def test_a_share_is_exact_at_every_moment(percent: int, count: int) -> None:
    share, given_so_far = Share(percent), 0
    for number in range(1, count + 1):
        due = share.is_due()
        share.count(given=due)
        given_so_far += due
        assert given_so_far == number * percent // 100


@given(percent=st.integers(1, 99), full=st.lists(st.booleans(), max_size=300))
def test_who_has_no_room_is_not_flooded_afterwards(percent: int, full: list[bool]) -> None:
    share = Share(percent)
    for busy in full:
        share.count(given=share.is_due() and not busy)
    given_in_a_row = 0
    while share.is_due():
        share.count(given=True)
        given_in_a_row += 1
        assert given_in_a_row <= 2 + percent // (100 - percent)


def test_only_what_is_the_revisions_own_fault_counts_as_an_error() -> None:
    tally = Tally()
    tally.failed(InvalidRequest("no such parameter"))
    assert tally.arm() == Arm()
    tally.failed(EngineFailed("gone"))
    tally.answered(1.0, 10)
    assert tally.arm() == Arm(2, 1, 0.1, 0.1)
    assert tally.arm().error_percent == 50
    tally.begin()
    assert tally.arm() == Arm()


def test_slow_answers_are_told_beside_the_median() -> None:
    tally = Tally()
    for number in range(100):
        tally.answered(float(number), 1)
    assert tally.arm() == Arm(100, 0, 49.5, 94.0)


@pytest.mark.parametrize(
    ("newer", "older", "why"),
    [
        pytest.param(Arm(ENOUGH - 1, ENOUGH - 1), Arm(100), None, id="too few to tell"),
        pytest.param(Arm(100, 1), Arm(100), None, id="as many errors as are allowed"),
        pytest.param(Arm(100, 2), Arm(100), "2 of its 100 requests", id="more than are allowed"),
        pytest.param(Arm(100, 20), Arm(100, 20), None, id="the older one fails as often"),
        pytest.param(Arm(100, 21), Arm(100, 20), "20.0 % are allowed", id="it fails more often"),
        pytest.param(Arm(9, 0, 0.15), Arm(9, 0, 0.1), None, id="as slow as is allowed"),
        pytest.param(Arm(9, 0, 0.16), Arm(9, 0, 0.1), "160 % of the 100.00 ms", id="slower"),
        pytest.param(Arm(9, 0, 0.16), Arm(2, 0, 0.1), None, id="nothing to compare with"),
    ],
)
def test_the_newer_one_must_not_do_worse(newer: Arm, older: Arm, why: str | None) -> None:
    found = breach(newer, older, Limits(error_percent=1, latency_ratio_percent=150))
    assert (found is None) == (why is None)
    assert why is None or why in (found or "")


def test_times_are_compared_only_where_a_limit_is_set() -> None:
    assert breach(Arm(9, 0, 9.0), Arm(9, 0, 0.1), Limits()) is None
