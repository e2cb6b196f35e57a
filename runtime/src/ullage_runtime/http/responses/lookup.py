"""Finding what is stored: here, or at the pod whose ordinal the id tells.

A pod that was asked by another one looks at its own store only, so that nothing is passed around.
"""

from typing import Any, Final

import httpx
from starlette.requests import Request

from ullage_api.wire.pool_desired import Peer
from ullage_runtime.core.errors import (
    PeerUnavailable,
    PreviousResponseNotFound,
    ResponseNotFound,
)
from ullage_runtime.http.auth import Key
from ullage_runtime.http.forwarding import HOP_HEADER
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.responses import ids
from ullage_runtime.http.responses.items import MAX_ITEMS
from ullage_runtime.http.responses.store import Item, Stored
from ullage_runtime.http.services import Services

MAX_PAGE: Final = 100
"""Items of one page of a list."""
_NOT_FOUND: Final = 404
_DAY: Final = 86400


def keeper(services: Services, request: Request, name: str) -> Peer | None:
    """Return the other pod that keeps what has this id; None when it is to be looked for here."""
    origin = ids.origin_of(name)
    if origin is None or HOP_HEADER in request.headers:
        return None
    return services.forwarder.peer(origin.ordinal, services.models.desired)


async def stored_here(services: Services, request: Request, response_id: str) -> Stored:
    """Return the caller's response from this pod's store; raises ResponseNotFound."""
    key: Key = request.scope[KEY]
    stored = await services.responses.get(key.id, response_id)
    if stored is None:
        raise ResponseNotFound(_absence(services, response_id))
    return stored


async def conversation(services: Services, request: Request, response_id: str) -> tuple[Item, ...]:
    """Return all items up to a response and its own, from whichever pod keeps it.

    Raises PreviousResponseNotFound or PeerUnavailable.
    """
    peer = keeper(services, request, response_id)
    try:
        if peer is None:
            return (await stored_here(services, request, response_id)).conversation
        return await _fetched(services, request, peer, response_id)
    except ResponseNotFound as error:
        raise PreviousResponseNotFound(error.message, "previous_response_id") from None


async def _fetched(
    services: Services, request: Request, peer: Peer, response_id: str
) -> tuple[Item, ...]:
    path = f"/v1/responses/{response_id}"
    context: list[Item] = []
    page: dict[str, Any] = {"has_more": True, "last_id": None}
    while page["has_more"] and len(context) <= MAX_ITEMS:
        after = f"&after={page['last_id']}" if page["last_id"] else ""
        query = f"input_items?order=asc&limit={MAX_PAGE}{after}"
        page = _json(peer, await services.forwarder.asked(request, peer, f"{path}/{query}"))
        context += page["data"]
    response = _json(peer, await services.forwarder.asked(request, peer, path))
    return (*context, *response["output"])


def _json(peer: Peer, answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code == _NOT_FOUND:
        raise ResponseNotFound(str(answer.json()["error"]["message"]))
    if not answer.is_success:
        raise PeerUnavailable(
            f"pod {peer.ordinal}, which keeps the conversation, answers {answer.status_code}",
            retry_after=1,
        )
    found: dict[str, Any] = answer.json()
    return found


def _absence(services: Services, response_id: str) -> str:
    """Return why there is no such response, as far as its id tells."""
    seconds = services.settings.responses_keep_seconds
    origin = ids.origin_of(response_id)
    if origin is not None and origin.created + seconds <= services.now():
        return f"response {response_id!r} has expired: responses are kept for {_span(seconds)}"
    return (
        f"no response {response_id[:80]!r}: it was not stored, was deleted, made way for newer "
        "ones, or belongs to another key"
    )


def _span(seconds: float) -> str:
    if seconds % _DAY == 0:
        return f"{seconds / _DAY:g} days"
    return f"{seconds:g} seconds"
