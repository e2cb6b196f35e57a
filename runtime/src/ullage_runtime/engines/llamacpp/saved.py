"""Cached prefixes in a file, for the same model when it is loaded again."""

import struct
from pathlib import Path
from typing import Final

import msgpack

from ullage_runtime.core.scheduling.memory import Memory

_LENGTH: Final = struct.Struct(">I")
_MARGIN: Final = 64
"""What a record takes besides its content, at most: the names of who may share it are short."""
_TOKEN_BYTES: Final = 9
"""What a record takes for each token besides keys and values, at most."""


def save(memory: Memory, path: str, limit: int) -> int:
    """Write the prefixes that were used last, as many as fit; return the bytes written.

    Raises OSError.
    """
    chosen, left = [], limit
    for salt, tokens, slot in memory.cached():
        size = memory.context.saved_size(slot) + _TOKEN_BYTES * len(tokens) + _MARGIN
        size += sum(len(str(part).encode()) for part in (salt if isinstance(salt, tuple) else ()))
        if size <= left:
            chosen.append((salt, tokens, slot))
            left -= size
    written = 0
    with Path(path).open("wb") as file:
        # The one used last comes back last, so that it is again the last to be dropped.
        for salt, tokens, slot in reversed(chosen):
            content = memory.save(slot)
            if content is not None:
                record = msgpack.packb((salt, tokens, content))
                written += file.write(_LENGTH.pack(len(record))) + file.write(record)
    return written


def restore(memory: Memory, path: str) -> int:
    """Take back what was saved, and return how many prefixes that were.

    Raises OSError, and ValueError or struct.error for what was not written by `save`.
    """
    taken = 0
    with Path(path).open("rb") as file:
        while length := file.read(_LENGTH.size):
            record = file.read(_LENGTH.unpack(length)[0])
            match msgpack.unpackb(record, use_list=False):
                case tuple(salt), tuple(tokens), bytes(content):
                    taken += memory.take_back(salt, tokens, content)
                case _:
                    raise ValueError("no saved prefix")
    return taken
