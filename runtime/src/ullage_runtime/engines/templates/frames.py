"""What renderer and child say to each other: JSON objects behind a 4-byte length, on a socket."""

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

MAX_FRAME_BYTES: Final = 128 << 20
"""Longest frame either side reads: the longest text, were every character escaped or of 4 bytes."""

_LENGTH: Final = struct.Struct(">I")


class FrameError(Exception):
    """What came is no frame, or too long for one."""


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as a frame; raises FrameError when it is too long."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is too long")
    return _LENGTH.pack(len(body)) + body


def send(connection: socket.socket, frame: bytes, until: float | None = None) -> None:
    """Send a frame; raises TimeoutError when it is not taken by then, on the monotonic clock."""
    _set_timeout(connection, until)
    connection.sendall(frame)


def receive(connection: socket.socket, until: float | None = None) -> dict[str, Any]:
    """Return the next message; raises EOFError, FrameError, or TimeoutError when it is late."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, until))
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {length} bytes is too long")
    try:
        message = json.loads(_exactly(connection, length, until))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("not a JSON object")
    return message


def _exactly(connection: socket.socket, count: int, until: float | None) -> bytes:
    data = bytearray()
    while len(data) < count:
        _set_timeout(connection, until)
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _set_timeout(connection: socket.socket, until: float | None) -> None:
    if until is None:
        connection.settimeout(None)
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
