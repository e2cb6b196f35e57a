"""The part of Qdrant's REST API that we use, over the shards of this process."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pydantic_core
import structlog
from starlette.types import Receive, Scope, Send

from ullage_runtime.retrieval.edge.carrying import Page
from ullage_runtime.retrieval.edge.optimising import OptimisationFailed, Optimiser
from ullage_runtime.retrieval.edge.refusals import NotFound, Refused
from ullage_runtime.retrieval.edge.shards import Shards

log = structlog.stdlib.get_logger(__name__)

VERSION = "1.17.0"
"""The release of Qdrant whose API this is a part of."""

Answer = Callable[["Facade", str, Any], Awaitable[Any]]
"""What answers requests on a collection, by its name and the request's body."""


class Facade:
    """An ASGI application; `key` is what callers must send as `api-key`."""

    def __init__(self, shards: Shards, optimiser: Optimiser, key: str) -> None:
        self.shards = shards
        self.optimiser = optimiser
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"api-key"), b"")
        if not hmac.compare_digest(given, self._key):
            status, answer = 403, _refusal("Invalid API key")
        elif (body := await _received(receive)) is None:
            return
        else:
            status, answer = await self._answered(scope["method"], scope["path"], body)
        answer["time"] = time.perf_counter() - began
        content = pydantic_core.to_json(answer)
        length = str(len(content)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answered(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            answer, name = _route(method, path)
            parsed = pydantic_core.from_json(body or b"{}", allow_inf_nan=False)
            return 200, {"result": await answer(self, name, parsed), "status": "ok"}
        except Refused as error:
            return error.status, _refusal(str(error))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            return 400, _refusal(f"Format error in JSON body: {error!r}")
        except (OptimisationFailed, OSError) as error:
            log.error("a shard cannot be used", error=str(error))  # noqa: TRY400
            return 500, _refusal(f"Service internal error: {error}")


async def _received(receive: Receive) -> bytes | None:
    """Return a request's body; None if whoever sends it has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _refusal(message: str) -> dict[str, Any]:
    return {"status": {"error": message}}


def _route(method: str, path: str) -> tuple[Answer, str]:
    """Return what answers a request, and the collection in its path; raises NotFound."""
    name, what = "", path
    if path.startswith(OF_COLLECTIONS) and (method, path) not in ROUTES:
        name, slash, rest = path.removeprefix(OF_COLLECTIONS).partition("/")
        what = f"{OF_COLLECTIONS}*{slash}{rest}"
    answer = ROUTES.get((method, what))
    if answer is None:
        raise NotFound(f"there is no {method} {path}")
    return answer, name


def _completed() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


async def _collections(facade: Facade, _: str, __: Any) -> Any:
    return {"collections": [{"name": name} for name in facade.shards.names()]}


async def _exists(facade: Facade, name: str, _: Any) -> Any:
    return {"exists": facade.shards.has(name)}


async def _describe(facade: Facade, name: str, _: Any) -> Any:
    return facade.shards.describe(name)


async def _create(facade: Facade, name: str, body: Any) -> Any:
    facade.shards.create(name, body)
    return True


async def _alter(facade: Facade, name: str, body: Any) -> Any:
    if facade.shards.shard(name).journal is not None:
        raise Refused(f"collection {name!r} is being optimised; try again later")
    facade.shards.alter(name, body)
    return True


async def _drop(facade: Facade, name: str, _: Any) -> Any:
    await facade.optimiser.wait_writable(name)
    return facade.shards.drop(name)


async def _aliases(facade: Facade, _: str, __: Any) -> Any:
    pairs = facade.shards.aliases().items()
    return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in pairs]}


async def _change_aliases(facade: Facade, _: str, body: Any) -> Any:
    facade.shards.change_aliases(body["actions"])
    return True


async def _upsert(facade: Facade, name: str, body: Any) -> Any:
    await facade.optimiser.wait_writable(name)
    facade.shards.upsert(name, body)
    return _completed()


async def _carry(facade: Facade, name: str, body: Any) -> Any:
    """Not Qdrant's: copy a page of another collection's points, some at a time."""
    page = Page.of(body)
    while not page.is_done:
        await facade.optimiser.wait_writable(name)
        facade.shards.carry(name, page)
        # Whoever searches has a turn in between.
        await asyncio.sleep(0)
    return page.told()


async def _delete(facade: Facade, name: str, body: Any) -> Any:
    await facade.optimiser.wait_writable(name)
    facade.shards.delete(name, body)
    return _completed()


async def _index(facade: Facade, name: str, body: Any) -> Any:
    await facade.optimiser.wait_writable(name)
    facade.shards.index_field(name, body)
    return _completed()


async def _retrieve(facade: Facade, name: str, body: Any) -> Any:
    return facade.shards.retrieve(name, body)


async def _scroll(facade: Facade, name: str, body: Any) -> Any:
    return facade.shards.scroll(name, body)


async def _count(facade: Facade, name: str, body: Any) -> Any:
    return {"count": facade.shards.count(name, body)}


async def _query(facade: Facade, name: str, body: Any) -> Any:
    return {"points": facade.shards.query(name, body)}


async def _query_batch(facade: Facade, name: str, body: Any) -> Any:
    searches = body["searches"]
    return [{"points": each} for each in facade.shards.query_batch(name, searches)]


async def _optimise(facade: Facade, name: str, _: Any) -> Any:
    """Not Qdrant's: build indexes now, for those who will not wait until it is due."""
    await facade.optimiser.optimise(facade.shards.shard(name))
    return True


async def _optimise_soon(facade: Facade, name: str, _: Any) -> Any:
    """Not Qdrant's either: the same, without waiting for it."""
    facade.shards.shard(name).is_wanted = True
    return True


OF_COLLECTIONS: Final = "/collections/"
ROUTES: Final[Mapping[tuple[str, str], Answer]] = {
    ("GET", "/collections"): _collections,
    ("GET", "/collections/*"): _describe,
    ("GET", "/collections/*/exists"): _exists,
    ("PUT", "/collections/*"): _create,
    ("PATCH", "/collections/*"): _alter,
    ("DELETE", "/collections/*"): _drop,
    ("GET", "/aliases"): _aliases,
    ("POST", "/collections/aliases"): _change_aliases,
    ("PUT", "/collections/*/points"): _upsert,
    ("POST", "/collections/*/points/carry"): _carry,
    ("POST", "/collections/*/points/delete"): _delete,
    ("PUT", "/collections/*/index"): _index,
    ("POST", "/collections/*/points"): _retrieve,
    ("POST", "/collections/*/points/scroll"): _scroll,
    ("POST", "/collections/*/points/count"): _count,
    ("POST", "/collections/*/points/query"): _query,
    ("POST", "/collections/*/points/query/batch"): _query_batch,
    ("POST", "/collections/*/optimise"): _optimise,
    ("POST", "/collections/*/optimise/soon"): _optimise_soon,
}
"""By method and path, with a star for the name of a collection."""
