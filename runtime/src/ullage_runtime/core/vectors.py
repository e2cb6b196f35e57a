"""Arithmetic on vectors of 32-bit floats, held as bytes in this machine's order.

Plain Python: a vector takes tens of microseconds, its model milliseconds, and numpy would cost
every process more memory than it saves time.
"""

import math
from array import array
from typing import Final

_FLOAT: Final = "f"
_INTEGER: Final = "i"
FLOAT_BYTES: Final = 4


def floats(values: bytes) -> "array[float]":
    """Return a vector's numbers."""
    numbers = array(_FLOAT)
    numbers.frombytes(values)
    return numbers


def integers(values: bytes) -> "array[int]":
    """Return 32-bit integers."""
    numbers = array(_INTEGER)
    numbers.frombytes(values)
    return numbers


def dimensions(values: bytes) -> int:
    """Return how many numbers a vector has."""
    return len(values) // FLOAT_BYTES


def normalized(values: bytes) -> bytes:
    """Return a vector at length 1; raises ValueError for one that has no direction."""
    numbers = floats(values)
    length = math.hypot(*numbers)
    if not math.isfinite(length):
        raise ValueError("the vector has values that are not finite")
    if length == 0:
        raise ValueError("the vector is all zeros")
    return array(_FLOAT, [number / length for number in numbers]).tobytes()


def shortened(values: bytes, count: int) -> bytes:
    """Return a vector's first numbers at length 1; raises ValueError as `normalized` does.

    Models trained for it (Kusupati et al., "Matryoshka Representation Learning", 2022) keep most of
    a text's meaning there.
    """
    if count == dimensions(values):
        return values
    return normalized(values[: count * FLOAT_BYTES])


def dot(left: bytes, right: bytes) -> float:
    """Return the product of two vectors: their cosine, when both are of length 1."""
    return math.fsum(a * b for a, b in zip(floats(left), floats(right), strict=True))


def sigmoid(score: float) -> float:
    """Return a raw score as a number from 0 to 1."""
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    grown = math.exp(score)
    return grown / (1 + grown)
