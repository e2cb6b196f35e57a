"""What all paths have in common: they are soon found, and their bodies soon read."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from ullage_runtime.http.openapi import operation_id


class _Request(Request):
    async def json(self) -> Any:
        """Return what the body says; raises what Python's own parser raises.

        Pydantic's reads numbers several times as fast. What it refuses is given to Python's, which
        takes a little more, and whose complaints clients are told.
        """
        try:
            return from_json(await self.body())
        except ValueError:
            return await super().json()


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await answer(_Request(request.scope, request.receive))

        return handler


class Router(APIRouter):
    """The paths of one topic."""

    def __init__(self, *, prefix: str = "", tag: str | None = None) -> None:
        super().__init__(
            prefix=prefix,
            tags=None if tag is None else [tag],
            route_class=_Route,
            generate_unique_id_function=operation_id,
        )


def serve(app: FastAPI, routers: Iterable[Router]) -> None:
    """Have an application answer at routers' paths.

    FastAPI's own way of including them looks through each of them anew, twice, for every request.
    """
    for router in routers:
        app.router.routes.extend(router.routes)
