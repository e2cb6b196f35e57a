"""What conversions to any format share: their errors, precisions, and a place to work in."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class ConversionError(Exception):
    """What cannot be converted, or did not come out right; the message says why."""


class Precision(StrEnum):
    """What weights are written as; those with a number of bits in blocks have llama.cpp's names."""

    F32 = "f32"
    INT8 = "int8"
    F16 = "f16"
    Q8_0 = "q8_0"
    Q6_K = "q6_k"
    Q5_K_M = "q5_k_m"
    Q5_0 = "q5_0"
    Q4_K_M = "q4_k_m"
    Q4_0 = "q4_0"


class Closeness(Protocol):
    """How close a result is to its source."""

    @property
    def summary(self) -> str:
        """The figures, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of a conversion."""

    target: Path
    precision: Precision
    source_bytes: int
    target_bytes: int
    comparison: Closeness
    """The result beside the source."""


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Give a folder on the target's disk, of which nothing is left behind.

    Raises ConversionError when the target is there already.
    """
    if target.exists():
        raise ConversionError(f"{target} is there already; name one that is not")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
