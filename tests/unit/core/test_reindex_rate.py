"""A copy is as fast as it can be unnoticed."""

import pytest

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.reindexing.rate import (
    FIRST_RATE,
    LEAST_RATE,
    LONG_LAG,
    LONG_QUEUE,
    MOST_RATE,
    REST_SECONDS,
    SEEN_SECONDS,
    Pace,
    Pressure,
)

IDLE = Pressure()
FEW = Pressure(p95=0.01, searches=1)
FAST = Pressure(p95=0.010, searches=100)
SLOW = Pressure(p95=0.016, searches=100)


def resting() -> Pace:
    pace = Pace()
    pace.at_rest(FAST)
    return pace


def test_while_nobody_is_held_up_the_rate_doubles_each_second_up_to_what_the_job_allows() -> None:
    pace = Pace()
    for second in range(3):
        pace.adjust(FEW, second)
    assert pace.rate == FIRST_RATE * 8
    pace.limit = 5000
    pace.adjust(IDLE, 3)
    assert pace.rate == 5000
    pace.limit = None
    for second in range(4, 30):
        pace.adjust(IDLE, second)
    assert pace.rate == MOST_RATE


def test_the_rate_is_looked_at_once_a_second() -> None:
    pace = Pace()
    for _ in range(10):
        pace.adjust(FEW, 5.0)
    assert pace.rate == FIRST_RATE * 2


@pytest.mark.parametrize(
    ("pressure", "why"),
    [
        (SLOW, "95 % of the searches take 16.0 ms, 10.0 ms at rest"),
        (Pressure(queue=LONG_QUEUE + 1), "9 requests wait"),
        (Pressure(lag=LONG_LAG + 1), "yet to see 2001 changes"),
        (Pressure(level=MemoryLevel.HIGH), "memory is high"),
    ],
)
def test_the_rate_is_halved_when_somebody_is_held_up_and_rises_by_steps(
    pressure: Pressure, why: str
) -> None:
    pace = resting()
    pace.adjust(pressure, 0)
    assert pace.rate == FIRST_RATE / 2
    assert why in pace.why
    pace.adjust(FAST, 1)
    assert pace.rate == pytest.approx(FIRST_RATE * 0.55)
    assert not pace.why


def test_a_difference_of_a_blink_or_of_a_few_searches_changes_nothing() -> None:
    pace = Pace()
    pace.at_rest(Pressure(p95=0.001, searches=100))
    pace.adjust(Pressure(p95=0.0029, searches=100), 0)
    pace.adjust(Pressure(p95=9.0, searches=3), 1)
    assert pace.rate == FIRST_RATE * 4


def test_where_nobody_searches_it_is_as_fast_as_allowed_at_once() -> None:
    pace = Pace(limit=5000)
    pace.adjust(IDLE, 0)
    assert pace.rate == 5000


def test_what_is_halved_is_what_was_copied_where_that_is_less_than_was_allowed() -> None:
    pace = resting()
    pace.adjust(IDLE, 0)
    assert pace.rate == MOST_RATE
    pace.spend(16_000, 1)
    pace.adjust(SLOW, 2)
    assert pace.rate == 4000


def test_a_trickle_is_left_however_slow_others_are() -> None:
    pace = resting()
    for second in range(100):
        pace.adjust(SLOW, second)
    assert pace.rate == LEAST_RATE


def test_the_rate_is_not_halved_again_before_searches_can_show_what_came_of_it() -> None:
    pace = resting()
    for second in range(int(SEEN_SECONDS)):
        pace.adjust(SLOW, second)
    assert pace.rate == FIRST_RATE / 2
    pace.adjust(SLOW, SEEN_SECONDS)
    assert pace.rate == FIRST_RATE / 4
    for second in range(10):
        pace.adjust(FAST, 1 + SEEN_SECONDS + second)
    assert pace.rate == pytest.approx(FIRST_RATE / 2), "in ten steps it is where it was too high"


def test_nothing_is_copied_while_memory_is_critical() -> None:
    pace = Pace()
    pace.adjust(Pressure(level=MemoryLevel.CRITICAL), 0)
    assert pace.wait(1, 100) is None
    pace.adjust(IDLE, 101)
    assert pace.wait(1, 200) == 0


def test_searches_that_begin_under_way_are_first_measured_at_rest() -> None:
    pace = Pace()
    pace.adjust(IDLE, 0)
    pace.adjust(SLOW, 1)
    assert pace.rate == LEAST_RATE
    pace.adjust(FAST, 1 + REST_SECONDS)
    assert pace.rest_p95 == 0.010
    assert pace.rate > LEAST_RATE


def test_points_are_paid_from_a_bucket_and_never_faster_than_the_rate() -> None:
    pace = Pace(limit=100, rate=100)
    now, copied = 0.0, 0
    while now < 20:
        wait = pace.wait(32, now)
        assert wait is not None
        now += wait
        pace.spend(32, now)
        copied += 32
    assert copied == pytest.approx(100 * now, abs=100)


def test_a_page_that_is_larger_than_the_bucket_is_copied_once_the_bucket_is_full() -> None:
    pace = Pace(limit=10, rate=10)
    pace.spend(0, 0)
    assert pace.wait(256, 0) == 0.5
    pace.spend(256, 0.5)
    assert pace.wait(256, 0.5) == pytest.approx(25.6)
