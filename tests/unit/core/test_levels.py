"""Levels: how they rise, how they fall, and that they do not flicker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.budgets import Share
from ullage_runtime.core.levels import (
    DWELL_SECONDS,
    HYSTERESIS,
    Standing,
    Thresholds,
    level_of,
    next_standing,
)

LIMITS = Thresholds()
LOW, MODERATE, HIGH, CRITICAL = MemoryLevel


def run(*readings: tuple[float, float]) -> list[MemoryLevel]:
    """Return the levels after readings of (second, share)."""
    standing, levels = Standing(), []
    for now, share in readings:
        standing = next_standing(standing, share, now, LIMITS)
        levels.append(standing.level)
    return levels


@pytest.mark.parametrize(
    ("share", "level"),
    [(0, LOW), (0.59, LOW), (0.6, MODERATE), (0.8, HIGH), (0.89, HIGH), (0.9, CRITICAL)],
)
def test_each_level_begins_at_its_threshold(share: float, level: MemoryLevel) -> None:
    assert level_of(share, LIMITS) is level


def test_a_level_rises_at_once_also_over_several() -> None:
    assert run((0, 0.5), (2, 0.95)) == [LOW, CRITICAL]


def test_a_level_falls_after_ten_seconds_below_it() -> None:
    assert run((0, 0.85), (2, 0.7), (11, 0.7), (12, 0.7)) == [HIGH, HIGH, HIGH, MODERATE]


def test_less_than_three_points_below_the_threshold_is_not_below() -> None:
    assert run((0, 0.85), (2, 0.78), (500, 0.78)) == [HIGH, HIGH, HIGH]


def test_a_moment_above_begins_the_ten_seconds_anew() -> None:
    levels = run((0, 0.85), (2, 0.7), (11, 0.81), (13, 0.7), (22, 0.7), (23, 0.7))
    assert levels == [HIGH] * 5 + [MODERATE]


def test_it_falls_over_several_levels_together() -> None:
    assert run((0, 0.95), (2, 0.1), (12, 0.1)) == [CRITICAL, CRITICAL, LOW]


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 1)), max_size=60))
def test_a_level_is_never_too_low_and_falls_at_most_once_in_its_dwell(
    steps: list[tuple[float, float]],
) -> None:
    standing, now, last_fall = Standing(), 0.0, float("-inf")
    for passed, share in steps:
        now += passed
        before = standing.level
        standing = next_standing(standing, share, now, LIMITS)
        assert standing.level.rank >= level_of(share, LIMITS).rank
        if standing.level.rank < before.rank:
            assert now - last_fall >= DWELL_SECONDS
            assert level_of(share + HYSTERESIS, LIMITS).rank <= standing.level.rank
            last_fall = now


def test_a_budget_keeps_the_reserve_whatever_may_be_taken() -> None:
    assert Share(0.9, 0.1).of(1000) == 900
    assert Share(1.0, 0.25).of(1000) == 750
    assert Share(0.5, 0.1).of(1000) == 500
