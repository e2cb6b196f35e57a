import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.vectors import (
    dimensions,
    dot,
    floats,
    normalized,
    shortened,
    sigmoid,
)

NUMBERS = st.floats(-65536.0, 65536.0, width=32)


def vector(*numbers: float) -> bytes:
    return array("f", numbers).tobytes()


@given(st.lists(NUMBERS, min_size=1, max_size=50).filter(lambda v: math.hypot(*v) > 1e-20))
def test_a_normalized_vector_has_length_one_and_its_direction(numbers: list[float]) -> None:
    unit = floats(normalized(vector(*numbers)))
    assert math.hypot(*unit) == pytest.approx(1, abs=1e-5)
    length = math.hypot(*numbers)
    assert list(unit) == pytest.approx([n / length for n in numbers], abs=1e-5)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_direction(number: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        normalized(vector(1.0, number))


def test_zeros_have_no_direction() -> None:
    with pytest.raises(ValueError, match="all zeros"):
        normalized(vector(0.0, 0.0))
    with pytest.raises(ValueError, match="all zeros"):
        shortened(vector(0.0, 1.0), 1)


def test_a_shortened_vector_has_length_one_again() -> None:
    short = shortened(normalized(vector(3.0, 4.0, 12.0)), 2)
    assert dimensions(short) == 2
    assert list(floats(short)) == pytest.approx([0.6, 0.8])
    whole = normalized(vector(3.0, 4.0))
    assert shortened(whole, 2) == whole


def test_the_product_of_unit_vectors_is_their_cosine() -> None:
    left, right = normalized(vector(1.0, 0.0)), normalized(vector(1.0, 1.0))
    assert dot(left, right) == pytest.approx(math.sqrt(0.5))
    with pytest.raises(ValueError, match="is shorter"):
        dot(left, vector(1.0))


@given(st.floats(-1e6, 1e6))
def test_a_sigmoid_is_between_zero_and_one_and_never_overflows(score: float) -> None:
    found = sigmoid(score)
    assert 0 <= found <= 1
    assert sigmoid(-score) == pytest.approx(1 - found)


def test_vectors_are_little_endian_where_base64_is_told_to_be() -> None:
    assert vector(1.5) == struct.pack("<f", 1.5), "clients of the API decode them so"
