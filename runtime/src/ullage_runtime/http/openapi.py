"""The OpenAPI document: what generated clients and checkers read about an application.

FastAPI derives paths, parameters and bodies from the routes. Added here are the errors that a route
may answer with, whose one source is the error classes themselves, and how callers say who they are.
What FastAPI would claim and we never do, answering 422, is taken out.
"""

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from ullage_runtime.core.errors import (
    BodyTooLarge,
    CollectionNotFound,
    CollectionUnavailable,
    ContextLengthExceeded,
    DimensionMismatch,
    EngineFailed,
    Forbidden,
    InsufficientMemory,
    InvalidOutput,
    InvalidRequest,
    InvalidTemplate,
    MemoryBusy,
    ModelLoading,
    ModelNotFound,
    ModelSuspended,
    ModelUnavailable,
    Overloaded,
    PeerUnavailable,
    RequestTimeout,
    ResponseNotFound,
    ServingError,
    SessionNotFound,
    ShuttingDown,
    Unauthorized,
)
from ullage_runtime.http.errors import RateLimitExceeded

Responses = dict[int | str, dict[str, Any]]

SCHEME: Final = "key"

_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})

CALLED: Final = (Unauthorized, ServingError)
"""Errors of every route that needs a key."""
SENT: Final = (InvalidRequest, BodyTooLarge, Overloaded, ShuttingDown)
"""Errors of every route that takes a body."""
STORED: Final = (InvalidRequest, ResponseNotFound, PeerUnavailable, ShuttingDown)
"""Errors of every route that names a stored response."""
CHOSEN: Final = (Forbidden, ModelNotFound)
"""Errors of every route that names a model."""
SERVED: Final = (
    *CALLED,
    *SENT,
    *CHOSEN,
    ContextLengthExceeded,
    InvalidTemplate,
    RateLimitExceeded,
    EngineFailed,
    InvalidOutput,
    MemoryBusy,
    ModelLoading,
    ModelUnavailable,
    ModelSuspended,
    PeerUnavailable,
    RequestTimeout,
    InsufficientMemory,
)
"""Errors of every route on which a model works."""


SEARCHED: Final = (CollectionNotFound, CollectionUnavailable, DimensionMismatch, SessionNotFound)
"""Errors of every route on which a model may answer from what a search has found."""


class ErrorObject(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="allow")

    message: Annotated[str, Field(description="What is wrong, and what to do about it.")]
    type: Annotated[str, Field(description="The family of the error.")]
    param: Annotated[str | None, Field(description="The request's field that is to blame.")]
    code: Annotated[str, Field(description="What to tell errors apart by.")]


class ErrorAnswer(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorObject


def refusals(*errors: type[ServingError]) -> Responses:
    """Return a route's `responses` for the errors that it may answer with."""
    by_status: dict[int, list[type[ServingError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {status: _refusal(status, by_status[status]) for status in sorted(by_status)}


def _refusal(status: int, errors: list[type[ServingError]]) -> dict[str, Any]:
    lines = "\n".join(f"- `{error.code}`: {_meaning(error)}" for error in errors)
    answer: dict[str, Any] = {"model": ErrorAnswer, "description": lines}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds after which trying again makes sense; absent when waiting "
                "does not help.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return answer


def _meaning(error: type[ServingError]) -> str:
    if error is ServingError:
        return "Nobody foresaw this; the server's log has more under the request's id."
    return (error.__doc__ or "").partition("\n")[0]


def stream_of(chunk: type[BaseModel], *, done: bool = True) -> dict[str, Any]:
    """Return the media type of a stream of events that carry JSON objects of a kind.

    With `done`, one more event says that they are all.

    `itemSchema` and the shape of an event are those of OpenAPI 3.2, section 4.14.4, which tools
    read in documents of 3.1 too.
    """
    objects = [{"$ref": f"#/components/schemas/{m.__name__}"} for m in (chunk, ErrorAnswer)]
    data: list[dict[str, Any]] = [
        {
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": objects},
            "description": "A part of the answer, or an error, which ends the stream.",
        }
    ]
    if done:
        last = "The last event of a stream without error."
        data.append({"const": "[DONE]", "description": last})
    return {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "properties": {"data": {"type": "string", "anyOf": data}},
                "required": ["data"],
            }
        }
    }


def operation_id(route: APIRoute) -> str:
    """Return the name that generated clients give a route's method, such as `listModels`."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def describe(
    app: FastAPI,
    *,
    summary: str,
    tags: dict[str, str],
    secured: str | None,
    open_paths: Collection[str],
    schemas: Collection[type[BaseModel]] = (),
) -> None:
    """Have the application answer `/openapi.json` with a document that says all of this.

    `secured` says which bearer token is wanted, on all paths but the open ones; None: on no path.
    `schemas` are described although no answer consists of them alone, as a stream's events.
    """
    cached: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not cached:
            made = get_openapi(
                title=app.title,
                version=app.version,
                summary=summary,
                routes=app.routes,
                tags=[{"name": name, "description": text} for name, text in tags.items()],
                license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            )
            _without_422(made)
            _with_whole_bounds(made)
            _with_schemas(made, schemas)
            if secured is not None:
                _secure(made, secured, open_paths)
            cached.update(made)
        return cached

    answer: Callable[[], dict[str, Any]] = document
    app.openapi = answer  # type: ignore[method-assign] # FastAPI's own way to replace it


def _without_422(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    schemas = document.get("components", {}).get("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _with_whole_bounds(part: Any) -> None:
    """Write bounds such as 1.0 as 1: FastAPI makes all of them floats, integers' own too."""
    if isinstance(part, list):
        for item in part:
            _with_whole_bounds(item)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name in _BOUNDS and isinstance(value, float) and value.is_integer():
                part[name] = int(value)
            else:
                _with_whole_bounds(value)


def _with_schemas(document: dict[str, Any], models: Collection[type[BaseModel]]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        own = model.model_json_schema(
            mode="serialization", ref_template="#/components/schemas/{model}"
        )
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own


def _secure(document: dict[str, Any], text: str, open_paths: Collection[str]) -> None:
    document.setdefault("components", {})["securitySchemes"] = {
        SCHEME: {"type": "http", "scheme": "bearer", "description": text}
    }
    for path, operations in document["paths"].items():
        if path not in open_paths:
            for operation in operations.values():
                operation["security"] = [{SCHEME: []}]
