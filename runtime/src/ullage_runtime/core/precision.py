"""Precisions: the numbers that a model's weights are kept in, and what names of files say of them.

A repository of ONNX models often holds the same graph several times, told apart by the habits of
those who export: `model_fp16.onnx`, `model_quantized.onnx`, `int8/model.onnx` (transformers.js and
optimum). A name without such a word says 32 bits, unless it is the only one there.
"""

import re
from enum import StrEnum
from typing import Final


class PrecisionType(StrEnum):
    """What a model's weights are kept in."""

    AUTO = "Auto"
    """Whatever the files have."""
    F32 = "f32"
    F16 = "f16"
    INT8 = "int8"


_F16_WORDS: Final = frozenset({"fp16", "f16", "float16", "half", "o4"})
"""`O4` is what optimum calls its optimisation that ends in 16 bits."""
_INT8_WORDS: Final = (
    "int8",
    "q8",
    "quantized",
    "qint8",
    "quint8",
    "uint8",
)
"""Those that say less of the machine that a file was made for come first."""
_OTHER_WORD: Final = re.compile(r"q[1-7]\w*|q8\w+|u?int4|bnb4|nf4|fp4|fp8|bf16|bfloat16|mxfp\d")
_BETWEEN: Final = re.compile(r"[-_./]+")


def stated_precision(name: str) -> PrecisionType | None:
    """Return what a file's name says of its weights; None when it says nothing.

    Auto stands for a precision that nobody can ask for, such as 4 bits.
    """
    words = _words(name)
    if any(_OTHER_WORD.fullmatch(word) for word in words):
        return PrecisionType.AUTO
    if not _F16_WORDS.isdisjoint(words):
        return PrecisionType.F16
    return PrecisionType.INT8 if _int8_place(words) < len(_INT8_WORDS) else None


def named_precision(name: str) -> PrecisionType:
    """Return the precision that a file's name stands for among others."""
    return stated_precision(name) or PrecisionType.F32


def preference(name: str) -> tuple[int, int, int, str]:
    """Return what orders files of one precision: the one to take first is the least.

    It is the same on every machine, as one revision is the same files on every pod.
    """
    return name.count("/"), _int8_place(_words(name)), len(name), name


def plain_name(name: str) -> str:
    """Return a file's name without folders and without what tells its builds apart."""
    last = name.rpartition("/")[2]
    kept = [word for word in _words(last) if not _tells_apart(word)]
    return "_".join(kept)


def _tells_apart(word: str) -> bool:
    machine = word.startswith(("avx", "arm", "vnni")) or re.fullmatch(r"o[1-4]", word) is not None
    return machine or stated_precision(word) is not None


def _int8_place(words: list[str]) -> int:
    places = [_INT8_WORDS.index(word) for word in words if word in _INT8_WORDS]
    return min(places, default=len(_INT8_WORDS))


def _words(name: str) -> list[str]:
    return [word for word in _BETWEEN.split(name.lower().removesuffix(".onnx")) if word]
