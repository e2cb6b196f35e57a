"""The headers of safetensors files: which tensors there are, and how many bytes they take.

Format: 8 bytes with the header's length, little-endian, a JSON object, then the tensors' bytes
(https://huggingface.co/docs/safetensors). A header that does not describe its file is found here,
before anything is mapped or computed with.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

from ullage_runtime.core.errors import invalid_model

MAX_HEADER_BYTES: Final = 100_000_000
"""Longest header that the format's own library accepts."""

_LENGTH_BYTES: Final = 8


def tensor_bytes(path: Path) -> int:
    """Return the bytes of a file's tensors; raises LoadError for a file that is damaged."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            room = size - _LENGTH_BYTES - length
            if not 0 < length <= MAX_HEADER_BYTES or room < 0:
                raise invalid_model(f"{path.name} is damaged: its header would have {length} bytes")
            header = json.loads(file.read(length))
    except OSError as error:
        raise invalid_model(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise invalid_model(f"{path.name} is damaged: its header is no JSON") from error
    if not isinstance(header, dict):
        raise invalid_model(f"{path.name} is damaged: its header is no JSON object")
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    if not tensors:
        raise invalid_model(f"{path.name} holds no tensors")
    return sum(_bytes_of(path, name, tensor, room) for name, tensor in tensors.items())


def _bytes_of(path: Path, name: str, tensor: Any, room: int) -> int:
    offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
    match offsets:
        case [int(begin), int(end)] if 0 <= begin <= end <= room:
            return end - begin
        case [int(), int()]:
            raise invalid_model(
                f"{path.name} is incomplete or damaged: {name[:80]!r} would lie at "
                f"{offsets[0]} to {offsets[1]} of {room} bytes"
            )
        case _:
            raise invalid_model(f"{path.name} is damaged: {name[:80]!r} has no place in it")
