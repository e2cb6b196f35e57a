"""The one place where errors become HTTP: OpenAI's error JSON, its status and its headers.

ServingErrors are rendered as they are, validation errors as 400 with the field's path, unknown
paths and methods in the same shape, and anything unexpected as a 500 that says nothing but the
request's id: the rest is in the log.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from ullage_runtime.core.errors import InvalidRequest, ServingError, Unauthorized

log = structlog.stdlib.get_logger(__name__)


class UnknownPath(ServingError):  # noqa: N818 - named after what the client is told
    """Nothing answers at this path."""

    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(ServingError):  # noqa: N818
    """The path exists, the method does not."""

    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class RateLimitExceeded(ServingError):  # noqa: N818
    """The key has used up what the model allows it a minute."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


def error_body(error: ServingError) -> dict[str, Any]:
    """Return OpenAI's error object for an error."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
            **error.details,
        }
    }


def error_text(error: ServingError) -> bytes:
    """Return the JSON text of an error, on one line."""
    return json.dumps(error_body(error), separators=(",", ":")).encode()


def error_response(error: ServingError) -> Response:
    """Return the HTTP response of an error."""
    response = Response(error_text(error), status_code=error.status, media_type="application/json")
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, RateLimitExceeded):
        # OpenAI's clients would try again by themselves, to no avail.
        response.headers["X-Should-Retry"] = "false"
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def unexpected(error: BaseException) -> ServingError:
    """Log an error nobody foresaw, with its traceback, and return what the client may know."""
    log.error("unexpected error", exc_info=error)
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return ServingError(f"internal error; the server's log has more under request {request_id}")


def from_validation(errors: Sequence[Any]) -> InvalidRequest:
    """Return the error that names the first field pydantic found wrong."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"the request body is not valid JSON: {first['ctx']['error']}")
    path = field_path(first["loc"])
    if not path and first["type"] != "value_error":
        return InvalidRequest(
            "the request body must be a JSON object, sent with Content-Type: application/json"
        )
    message = str(first["msg"]).removeprefix("Value error, ")
    return InvalidRequest(f"{path}: {message}" if path else message, param=path or None)


def field_path(location: Sequence[int | str]) -> str:
    """Return a field's path as a person writes it, such as `messages[0].content`."""
    path = ""
    for part in location[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _from_http(request: Request, error: HTTPException) -> ServingError:
    if error.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(f"{request.method} is not allowed on {request.url.path}")
    if error.status_code == UnknownPath.status:
        return UnknownPath(f"nothing answers at {request.url.path}; /openapi.json lists all paths")
    if error.__cause__ is not None:
        return InvalidRequest(f"the request body is not valid JSON: {_complaint(error.__cause__)}")
    return InvalidRequest(str(error.detail))


def _complaint(cause: BaseException) -> str:
    """Return in words what kept a body from being read, which FastAPI only hints at."""
    match cause:
        case UnicodeDecodeError():
            return f"byte {cause.start} is not UTF-8"
        case RecursionError():
            return "it is nested too deep"
        case _:
            return str(cause)


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """Return the methods of a path: Starlette names those of the first route at it only.

    Whatever has a placeholder where others have a word is another path, as in the document.
    """
    found = [
        route
        for route in app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    fewest = min((len(route.param_convertors) for route in found), default=0)
    same = [route for route in found if len(route.param_convertors) == fewest]
    return sorted({method for route in same for method in route.methods or ()})


def install_error_handlers(app: FastAPI) -> None:
    """Make an application render every error through this module."""

    async def serving(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServingError)  # noqa: S101 - it is registered for this class
        return error_response(error)

    async def validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - likewise
        return error_response(from_validation(error.errors()))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - likewise
        response = error_response(_from_http(request, error))
        response.headers.update(error.headers or {})
        if error.status_code == MethodNotAllowed.status:
            response.headers["Allow"] = ", ".join(_allowed(app, request))
        return response

    app.add_exception_handler(ServingError, serving)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
