"""The part of Qdrant's REST API that we use, over the shards of this process."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pydantic_core
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ullage_runtime.retrieval.edge.carrying import Page
from ullage_runtime.retrieval.edge.optimising import OptimisationFailed, Optimiser
from ullage_runtime.retrieval.edge.refusals import Refused
from ullage_runtime.retrieval.edge.shards import Shards

log = structlog.stdlib.get_logger(__name__)

VERSION = "1.17.0"
"""The release of Qdrant whose API this is a part of."""

Answer = Callable[["Facade", Request], Awaitable[Any]]


class Facade:
    """One application; `key` is what callers must send as `api-key`."""

    def __init__(self, shards: Shards, optimiser: Optimiser, key: str) -> None:
        self.shards = shards
        self.optimiser = optimiser
        self._key = key.encode()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route(path, self._answering(answer), methods=[method])
                for method, path, answer in ROUTES
            ]
        )

    def _answering(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            began = time.perf_counter()
            given = request.headers.get("api-key", "").encode()
            if not hmac.compare_digest(given, self._key):
                return _refusal(403, "Invalid API key")
            try:
                result = await answer(self, request)
            except Refused as error:
                return _refusal(error.status, str(error))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                return _refusal(400, f"Format error in JSON body: {error!r}")
            except (OptimisationFailed, OSError) as error:
                log.error("a shard cannot be used", error=str(error))  # noqa: TRY400
                return _refusal(500, f"Service internal error: {error}")
            took = time.perf_counter() - began
            return _json(200, {"result": result, "status": "ok", "time": took})

        return endpoint


def _json(status: int, body: object) -> Response:
    return Response(pydantic_core.to_json(body), status, media_type="application/json")


def _refusal(status: int, message: str) -> Response:
    return _json(status, {"status": {"error": message}, "time": 0.0})


def _name(request: Request) -> str:
    return str(request.path_params["name"])


async def _body(request: Request) -> Any:
    return pydantic_core.from_json(await request.body() or b"{}", allow_inf_nan=False)


def _completed() -> dict[str, Any]:
    return {"operation_id": 0, "status": "completed"}


async def _collections(facade: Facade, _: Request) -> Any:
    return {"collections": [{"name": name} for name in facade.shards.names()]}


async def _exists(facade: Facade, request: Request) -> Any:
    return {"exists": facade.shards.has(_name(request))}


async def _describe(facade: Facade, request: Request) -> Any:
    return facade.shards.describe(_name(request))


async def _create(facade: Facade, request: Request) -> Any:
    facade.shards.create(_name(request), await _body(request))
    return True


async def _alter(facade: Facade, request: Request) -> Any:
    name, body = _name(request), await _body(request)
    if facade.shards.shard(name).journal is not None:
        raise Refused(f"collection {name!r} is being optimised; try again later")
    facade.shards.alter(name, body)
    return True


async def _drop(facade: Facade, request: Request) -> Any:
    await facade.optimiser.wait_writable(_name(request))
    return facade.shards.drop(_name(request))


async def _aliases(facade: Facade, _: Request) -> Any:
    pairs = facade.shards.aliases().items()
    return {"aliases": [{"alias_name": a, "collection_name": c} for a, c in pairs]}


async def _change_aliases(facade: Facade, request: Request) -> Any:
    facade.shards.change_aliases((await _body(request))["actions"])
    return True


async def _upsert(facade: Facade, request: Request) -> Any:
    body = await _body(request)
    await facade.optimiser.wait_writable(_name(request))
    facade.shards.upsert(_name(request), body)
    return _completed()


async def _carry(facade: Facade, request: Request) -> Any:
    """Not Qdrant's: copy a page of another collection's points, some at a time."""
    name, body = _name(request), await _body(request)
    page = Page.of(body)
    while not page.is_done:
        await facade.optimiser.wait_writable(name)
        facade.shards.carry(name, page)
        # Whoever searches has a turn in between.
        await asyncio.sleep(0)
    return page.told()


async def _delete(facade: Facade, request: Request) -> Any:
    body = await _body(request)
    await facade.optimiser.wait_writable(_name(request))
    facade.shards.delete(_name(request), body)
    return _completed()


async def _index(facade: Facade, request: Request) -> Any:
    body = await _body(request)
    await facade.optimiser.wait_writable(_name(request))
    facade.shards.index_field(_name(request), body)
    return _completed()


async def _drop_index(facade: Facade, request: Request) -> Any:
    await facade.optimiser.wait_writable(_name(request))
    facade.shards.drop_index(_name(request), request.path_params["field"])
    return _completed()


async def _retrieve(facade: Facade, request: Request) -> Any:
    return facade.shards.retrieve(_name(request), await _body(request))


async def _scroll(facade: Facade, request: Request) -> Any:
    return facade.shards.scroll(_name(request), await _body(request))


async def _count(facade: Facade, request: Request) -> Any:
    return {"count": facade.shards.count(_name(request), await _body(request))}


async def _query(facade: Facade, request: Request) -> Any:
    return {"points": facade.shards.query(_name(request), await _body(request))}


async def _query_batch(facade: Facade, request: Request) -> Any:
    searches = (await _body(request))["searches"]
    return [{"points": each} for each in facade.shards.query_batch(_name(request), searches)]


async def _optimise(facade: Facade, request: Request) -> Any:
    """Not Qdrant's: build indexes now, for those who will not wait until it is due."""
    await facade.optimiser.optimise(facade.shards.shard(_name(request)))
    return True


async def _optimise_soon(facade: Facade, request: Request) -> Any:
    """Not Qdrant's either: the same, without waiting for it."""
    facade.shards.shard(_name(request)).is_wanted = True
    return True


ROUTES: tuple[tuple[str, str, Answer], ...] = (
    ("GET", "/collections", _collections),
    ("GET", "/collections/{name}", _describe),
    ("GET", "/collections/{name}/exists", _exists),
    ("PUT", "/collections/{name}", _create),
    ("PATCH", "/collections/{name}", _alter),
    ("DELETE", "/collections/{name}", _drop),
    ("GET", "/aliases", _aliases),
    ("POST", "/collections/aliases", _change_aliases),
    ("PUT", "/collections/{name}/points", _upsert),
    ("POST", "/collections/{name}/points/carry", _carry),
    ("POST", "/collections/{name}/points/delete", _delete),
    ("PUT", "/collections/{name}/index", _index),
    ("DELETE", "/collections/{name}/index/{field:path}", _drop_index),
    ("POST", "/collections/{name}/points", _retrieve),
    ("POST", "/collections/{name}/points/scroll", _scroll),
    ("POST", "/collections/{name}/points/count", _count),
    ("POST", "/collections/{name}/points/query", _query),
    ("POST", "/collections/{name}/points/query/batch", _query_batch),
    ("POST", "/collections/{name}/optimise", _optimise),
    ("POST", "/collections/{name}/optimise/soon", _optimise_soon),
)
