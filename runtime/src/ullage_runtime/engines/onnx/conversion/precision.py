"""What weights are written as, known without the libraries that write them."""

from enum import StrEnum


class Precision(StrEnum):
    """What weights are written as."""

    F32 = "f32"
    INT8 = "int8"
