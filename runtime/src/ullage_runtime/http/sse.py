"""Server-sent events, as OpenAI's clients read them."""

import json
from typing import Any, Final

from starlette.requests import Request

from ullage_runtime.core.errors import ServingError
from ullage_runtime.http.errors import error_text

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = (
    (b"content-type", f"{MEDIA_TYPE}; charset=utf-8".encode()),
    (b"cache-control", b"no-cache"),
    # Proxies such as nginx would collect a stream before passing it on.
    (b"x-accel-buffering", b"no"),
)

DONE: Final = b"data: [DONE]\n\n"
HEARTBEAT: Final = b": waiting\n\n"
"""A comment: clients skip it, proxies see that the connection lives."""


def is_wanted(request: Request) -> bool:
    """Return whether a client would rather read events than JSON, as EventSource in browsers."""
    ranges = request.headers.get("accept", "").split(",")
    types = [each.partition(";")[0].strip().lower() for each in ranges]
    named = (each for each in types if each in {MEDIA_TYPE, "application/json"})
    return next(named, None) == MEDIA_TYPE


def event(data: dict[str, Any], *, name: str | None = None) -> bytes:
    """Return one event with JSON data, and with a name where the API has them."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {text}\n\n".encode()


def error_event(error: ServingError) -> bytes:
    """Return the event that ends a broken stream."""
    # The blank line first closes whatever event was cut off halfway.
    return b"\n\ndata: " + error_text(error) + b"\n\n"
