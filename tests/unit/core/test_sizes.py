"""Byte counts in words."""

import pytest

from ullage_runtime.core.sizes import human_bytes


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (-1536, "-1.5 KiB"),
        ((1 << 20) - 1, "1024.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (15 << 30, "15.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_a_byte_count_has_the_unit_that_it_reaches(count: int, words: str) -> None:
    assert human_bytes(count) == words
