"""From a request to its response: which conversation, which model, here or at another pod."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ullage_api.wire.pool_desired import DesiredModel, Peer
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.auth import Key
from ullage_runtime.http.forwarding import ASK_SECONDS
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openai.grounding import Grounding
from ullage_runtime.http.openai.service import admitted, chat_model, chat_work, grounded
from ullage_runtime.http.responses import ids
from ullage_runtime.http.responses.answers import Growth, StreamedResponse, WholeResponse
from ullage_runtime.http.responses.head import response_head
from ullage_runtime.http.responses.items import (
    FILE_SEARCH_CALL,
    MAX_ITEMS,
    REFERENCE,
    chat_messages,
    check_calls,
    parsed_items,
    with_ids,
)
from ullage_runtime.http.responses.lookup import conversation, keeper, stored_here
from ullage_runtime.http.responses.pages import Page
from ullage_runtime.http.responses.schema import ResponseRequest, chat_request, renamed
from ullage_runtime.http.responses.store import Item, Stored
from ullage_runtime.http.responses.turn import Turn
from ullage_runtime.http.services import Services


async def created_response(services: Services, request: Request, body: ResponseRequest) -> Response:
    """Return the answer to a request, from here or from the pod that can give it best."""
    items = parsed_items(body.input)
    model = chat_model(services, request, body.model)
    peer = _keeping_peer(services, request, body, items)
    ordinal = None if peer is None else peer.ordinal
    is_here = model.suspended or services.models.is_local(model)
    # A pod that has the conversation and the model very likely has it in its prefix cache too.
    if not is_here or (ordinal is not None and ordinal in model.ordinals):
        at = ordinal if ordinal in model.ordinals else None
        return await services.forwarder.answer(request, model, services.models.desired, at)
    return await _own_response(services, request, body, model, items)


async def found_response(services: Services, request: Request, response_id: str) -> Response:
    """Return a stored response."""
    if (peer := keeper(services, request, response_id)) is not None:
        return await services.forwarder.answer_of(request, [peer], ASK_SECONDS)
    return JSONResponse((await stored_here(services, request, response_id)).response)


async def deleted_response(services: Services, request: Request, response_id: str) -> Response:
    """Forget a stored response."""
    if (peer := keeper(services, request, response_id)) is not None:
        return await services.forwarder.answer_of(request, [peer], ASK_SECONDS)
    stored = await stored_here(services, request, response_id)
    key: Key = request.scope[KEY]
    await services.responses.delete(key.id, response_id)
    return JSONResponse({"id": stored.response["id"], "object": "response", "deleted": True})


async def refused_cancelling(services: Services, request: Request, response_id: str) -> Response:
    """Raise InvalidRequest: what is stored is complete, and nothing runs in the background."""
    if (peer := keeper(services, request, response_id)) is not None:
        return await services.forwarder.answer_of(request, [peer], ASK_SECONDS)
    await stored_here(services, request, response_id)
    raise InvalidRequest(
        "only responses created with background: true can be cancelled, and there are none here; "
        "to end one that is under way, close its connection"
    )


async def input_items(
    services: Services, request: Request, response_id: str, page: Page
) -> Response:
    """Return one page of the items that a response was the answer to."""
    if (peer := keeper(services, request, response_id)) is not None:
        return await services.forwarder.answer_of(request, [peer], ASK_SECONDS)
    stored = await stored_here(services, request, response_id)
    return JSONResponse(page.of(stored.context))


async def _own_response(
    services: Services,
    request: Request,
    body: ResponseRequest,
    model: DesiredModel,
    items: Sequence[Item],
) -> Response:
    key: Key = request.scope[KEY]
    now = services.now()
    new_id = partial(ids.new_id, ordinal=services.settings.ordinal, created=now)
    context = await _context(services, request, body, items, new_id)
    chat = chat_request(body, chat_messages(context, body.instructions))
    try:
        work = chat_work(chat, model)
    except InvalidRequest as error:
        raise renamed(error) from None
    work, grounding, then = await grounded(services, request, chat, work)
    generation = admitted(services, request, model, [work], then=then)
    head = response_head(body, new_id(ids.RESPONSE), now, work.sampling, chat.served_tier)
    cite = None if grounding is None else grounding.citations
    turn = Turn(head, new_id, services.now, cite)
    searched = None if grounding is None else search_item(grounding, results=body.wants_results)

    async def keep(response: dict[str, Any]) -> dict[str, Any]:
        if not body.is_stored or await services.responses.save(key.id, Stored(response, context)):
            return response
        return {**response, "store": False}

    growth = Growth(generation, turn, keep, searched)
    if not body.stream:
        return WholeResponse(growth)
    return StreamedResponse(growth, services.settings.heartbeat_seconds)


def search_item(grounding: Grounding, *, results: bool) -> Item:
    """Return the item that tells of a search."""
    return {
        "type": FILE_SEARCH_CALL,
        "status": "completed",
        "queries": [grounding.query],
        "results": [each.result() for each in grounding.sources] if results else None,
    }


async def _context(
    services: Services,
    request: Request,
    body: ResponseRequest,
    items: Sequence[Item],
    new_id: Callable[[str], str],
) -> tuple[Item, ...]:
    """Return all that a request wants an answer to: what was stored before, and its own items."""
    history: tuple[Item, ...] = ()
    if body.previous_response_id is not None:
        history = await conversation(services, request, body.previous_response_id)
    known = {item["id"]: item for item in history}
    own = [
        await _referred(services, request, known, index, item) for index, item in enumerate(items)
    ]
    context = (*history, *with_ids(own, history, new_id))
    if len(context) > MAX_ITEMS:
        raise InvalidRequest(
            f"the conversation has {len(context)} items; at most {MAX_ITEMS} are allowed: begin "
            "a new one",
            param="input",
        )
    check_calls(context)
    return context


async def _referred(
    services: Services, request: Request, known: Mapping[str, Item], index: int, item: Item
) -> Item:
    """Return an item, or the stored one that it refers to."""
    if item["type"] != REFERENCE:
        return item
    key: Key = request.scope[KEY]
    name = item["id"]
    found = known.get(name) or await services.responses.item(key.id, name)
    if found is None:
        raise InvalidRequest(
            f"input[{index}]: no item {name[:80]!r} is stored by the pod that answers; send the "
            "item itself, or previous_response_id",
            param=f"input[{index}]",
        )
    return found


def _keeping_peer(
    services: Services, request: Request, body: ResponseRequest, items: Sequence[Item]
) -> Peer | None:
    """Return the other pod that keeps what a request builds on, if it builds on anything."""
    if body.previous_response_id is not None:
        return keeper(services, request, body.previous_response_id)
    references = (item["id"] for item in items if item["type"] == REFERENCE)
    peers = (keeper(services, request, name) for name in references)
    return next((peer for peer in peers if peer is not None), None)
