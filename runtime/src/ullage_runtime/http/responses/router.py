"""The paths of the Responses API."""

from typing import Annotated, Literal

from fastapi import Query, Request
from starlette.responses import Response

from ullage_runtime.core.errors import InvalidRequest, PreviousResponseNotFound
from ullage_runtime.http.openapi import CALLED, SEARCHED, SENT, SERVED, STORED, refusals, stream_of
from ullage_runtime.http.responses.lookup import MAX_PAGE
from ullage_runtime.http.responses.objects import (
    DeletedResponse,
    InputItems,
    ResponseEvent,
    ResponseObject,
)
from ullage_runtime.http.responses.pages import Page
from ullage_runtime.http.responses.schema import ResponseRequest
from ullage_runtime.http.responses.service import (
    created_response,
    deleted_response,
    found_response,
    input_items,
    refused_cancelling,
)
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Responses"

router = Router(prefix="/v1/responses", tag=TAG)

_FOUND = refusals(*CALLED, *STORED)


@router.post(
    "",
    response_model=ResponseObject,
    responses={
        200: {
            "description": "The response, whole or, with `stream`, as events.",
            "content": stream_of(ResponseEvent, done=False),
            "links": {
                operation: {
                    "operationId": operation,
                    "parameters": {"response_id": "$response.body#/id"},
                }
                for operation in ("getResponse", "deleteResponse", "listInputItems")
            },
        },
        **refusals(*SERVED, *SEARCHED, PreviousResponseNotFound),
    },
)
async def create_response(
    body: ResponseRequest, request: Request, services: ServicesOf
) -> Response:
    """Answer a conversation, whole or as a stream, and store it unless told not to."""
    return await created_response(services, request, body)


@router.get("/{response_id}", response_model=ResponseObject, responses=_FOUND)
async def get_response(
    response_id: str,
    request: Request,
    services: ServicesOf,
    *,
    stream: Annotated[bool, Query(include_in_schema=False)] = False,
) -> Response:
    """Return a stored response."""
    if stream:
        raise InvalidRequest("stored responses are not streamed again; leave it out", "stream")
    return await found_response(services, request, response_id)


@router.delete("/{response_id}", response_model=DeletedResponse, responses=_FOUND)
async def delete_response(response_id: str, request: Request, services: ServicesOf) -> Response:
    """Forget a stored response."""
    return await deleted_response(services, request, response_id)


@router.post(
    "/{response_id}/cancel",
    response_model=ResponseObject,
    responses=refusals(*CALLED, *SENT, *STORED),
)
async def cancel_response(response_id: str, request: Request, services: ServicesOf) -> Response:
    """Refuse: nothing runs in the background."""
    return await refused_cancelling(services, request, response_id)


@router.get("/{response_id}/input_items", response_model=InputItems, responses=_FOUND)
async def list_input_items(
    response_id: str,
    request: Request,
    services: ServicesOf,
    after: Annotated[str | None, Query(description="Id of the item before the page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items in a page.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or latest first.")] = "desc",
) -> Response:
    """List the items that a response was the answer to, those of earlier turns included."""
    return await input_items(services, request, response_id, Page(limit, order, after))
