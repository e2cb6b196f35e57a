import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_operator.reconcile.quantities import (
    GIB,
    MIB,
    brief_seconds,
    quantised,
    quantum,
    readable,
)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1 << 10, "1.0 KiB"),
        (25 * MIB, "25.0 MiB"),
        (14 * GIB + GIB // 5, "14.2 GiB"),
    ],
)
def test_bytes_are_readable(size: int, words: str) -> None:
    assert readable(size) == words


def test_large_sizes_are_shown_in_steps_of_256_mib() -> None:
    assert quantised(14 * GIB + 1) == 14 * GIB + 256 * MIB


@given(st.integers(min_value=1, max_value=1 << 50))
def test_a_shown_size_is_never_less_than_the_true_one_and_close_to_it(size: int) -> None:
    shown = quantised(size)
    assert shown is not None
    assert size <= shown <= size + quantum(size)
    assert shown <= size * 17 / 16 + 4096


@given(st.integers(min_value=1, max_value=1 << 50))
def test_showing_a_shown_size_again_changes_nothing(size: int) -> None:
    shown = quantised(size)
    assert quantised(size, shown) == shown


def test_a_size_that_wavers_around_a_step_is_shown_once() -> None:
    shown = quantised(8 * GIB)
    for size in (8 * GIB - 1, 8 * GIB, 8 * GIB - 100 * MIB):
        assert quantised(size, shown) == shown


def test_nothing_known_is_nothing_shown() -> None:
    assert quantised(None, 5) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0"),
        (0.0004, "0.000"),
        (0.004, "0.004"),
        (0.0312, "0.031"),
        (0.178, "0.18"),
        (0.999, "1.00"),
        (1.61, "1.6"),
        (9.99, "10.0"),
        (12.3, "12"),
        (3600, "3600"),
    ],
)
def test_durations_are_brief(seconds: float, words: str) -> None:
    assert brief_seconds(seconds) == words
