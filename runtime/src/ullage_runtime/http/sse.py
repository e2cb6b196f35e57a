"""Server-sent events, as OpenAI's clients read them."""

import json
from typing import Any, Final

from ullage_runtime.core.errors import ServingError
from ullage_runtime.http.errors import error_text

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies such as nginx would collect a stream before passing it on.
    (b"x-accel-buffering", b"no"),
)

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": waiting\n\n"
"""A comment: clients skip it, proxies see that the connection lives."""


def event(data: dict[str, Any], *, name: str | None = None) -> bytes:
    """Return one event with JSON data, and with a name where the API has them."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {text}\n\n".encode()


def error_event(error: ServingError) -> bytes:
    """Return the event that ends a broken stream."""
    # The blank line first closes whatever event was cut off halfway.
    return b"\n\ndata: " + error_text(error) + b"\n\n"
