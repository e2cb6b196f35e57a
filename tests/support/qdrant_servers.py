"""A Qdrant server for tests: the embedded store on a port of its own, watched, and away at will.

What is asked passes through unchanged, the key too, which the store itself demands.
"""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.processes import free_port
from ullage_runtime.addresses import bound_socket
from ullage_runtime.retrieval.edge.owning import ShardOwner
from ullage_runtime.retrieval.stores.qdrant import QdrantStore
from ullage_runtime.server import Server

HOST: Final = "127.0.0.1"
READS: Final = ("/points", "/points/query/batch", "/points/scroll", "/points/count")
"""Ends of the paths of what is posted and changes nothing."""

Edit = Callable[[str, str, Any], Any]
"""Takes a request's method and path and what is answered to it, and returns what is told."""


class QdrantServer:
    """A server on a folder, at an address that stays the same while it is away."""

    def __init__(self, owner: ShardOwner) -> None:
        self.owner = owner
        self.asked: list[tuple[str, str]] = []
        """Methods and paths, in their order."""
        self.bodies: list[bytes] = []
        self.answers = asyncio.Event()
        """Not set while it takes requests and answers none."""
        self.edit: Edit = lambda _, __, answer: answer
        self._port = free_port()
        self._server: Server | None = None
        self._http = httpx.AsyncClient(base_url=owner.url, timeout=60, trust_env=False)
        self.answers.set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self._port}"

    @property
    def key(self) -> str:
        """The key that it demands, once it is started with it."""
        return self.owner.key

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was asked of it that changes something."""
        return [each for each in self.asked if not _only_reads(*each)]

    def store(self) -> QdrantStore:
        """Return a client of its own; whoever asks closes it."""
        return QdrantStore(self.owner.url, self.owner.key)

    async def begin(self) -> None:
        """Answer."""
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._relayed, methods=methods)])
        self._server = Server(app, bound_socket(HOST, self._port))
        await self._server.start()

    async def end(self) -> None:
        """Refuse every connection."""
        self.answers.set()
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def close(self) -> None:
        """End for good."""
        await self.end()
        await self._http.aclose()

    async def _relayed(self, request: Request) -> Response:
        method, path, body = request.method, request.url.path, await request.body()
        self.asked.append((method, path))
        self.bodies.append(body)
        await self.answers.wait()
        answer = await self._http.request(
            method,
            path,
            params=dict(request.query_params),
            content=body,
            headers=_kept(request.headers.items()),
        )
        told = self.edit(method, path, answer.json())
        return Response(
            json.dumps(told), answer.status_code, headers={"content-type": "application/json"}
        )


@contextlib.asynccontextmanager
async def qdrant_server(folder: pathlib.Path) -> AsyncIterator[QdrantServer]:
    """Give a server whose collections lie in a folder."""
    owner = ShardOwner(folder)
    await owner.start()
    server = QdrantServer(owner)
    try:
        await server.begin()
        yield server
    finally:
        await server.close()
        await owner.close()


def _only_reads(method: str, path: str) -> bool:
    if method == "POST":
        return path.endswith(READS)
    return method == "GET"


def _kept(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name in {"api-key", "content-type"}}
