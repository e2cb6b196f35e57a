"""GGUF files in parts, as gguf-split and gguf-py write them: `name-00001-of-00003.gguf` and so on.

llama.cpp opens the first, finds the others by their names beside it and computes with all of them.
The first has the metadata; each has tensors of its own, the first none if it was made so.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.engines.llamacpp.header import Header, RowBytes, read_header

_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
_PARTS, _PART, _TENSORS = "split.count", "split.no", "split.tensors.count"


def read_model(path: str, row_bytes: RowBytes) -> Header:
    """Return a model's header, of a file in parts with the tensors of all of them.

    Raises LoadError(InvalidModel) that says what is wrong and where.
    """
    first = read_header(path, row_bytes)
    count = first.parts
    if count == 1:
        return first
    name = _NAME.fullmatch(Path(path).name)
    if name is None or int(name["parts"]) != count:
        raise invalid_model(
            f"the file is one of {count} parts, of which the others are found by their names: call "
            f"the first of them <name>-00001-of-{count:05}.gguf"
        )
    if first.integers.get(_PART, 0) != 0:
        raise invalid_model(
            f"the file is part {first.integers[_PART] + 1} of {count}; name the first one, "
            f"{name['stem']}-00001-of-{count:05}.gguf"
        )
    beside = (f"{name['stem']}-{part:05}-of-{count:05}.gguf" for part in range(2, count + 1))
    others = [_part(Path(path).with_name(each), row_bytes) for each in beside]
    return _joined(first, others)


def _part(path: Path, row_bytes: RowBytes) -> Header:
    if not path.is_file():
        raise invalid_model(f"{path.name}, a part of the model, is not beside the first one")
    try:
        return read_header(str(path), row_bytes)
    except OSError as error:
        raise invalid_model(f"{path.name} cannot be read: {error.strerror}") from error


def _joined(first: Header, others: list[Header]) -> Header:
    for part, header in enumerate(others, 2):
        if (header.parts, header.integers.get(_PART)) != (first.parts, part - 1):
            raise invalid_model(
                f"what is named part {part} of {first.parts} says that it is another one: the "
                "files are mixed up"
            )
    parts = (first, *others)
    tensors = sum(header.tensors for header in parts)
    if tensors != first.integers.get(_TENSORS, tensors):
        raise invalid_model(
            f"the parts have {tensors} tensors together, and should have "
            f"{first.integers[_TENSORS]}: they are not of one model"
        )
    return replace(
        first,
        tensors=tensors,
        tensor_bytes=sum(header.tensor_bytes for header in parts),
        has_classifier=any(header.has_classifier for header in parts),
    )
