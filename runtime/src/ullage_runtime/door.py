"""The internal API on this machine alone, for workers that this process starts."""

import asyncio
import secrets
from collections.abc import Callable

from fastapi import FastAPI

from ullage_runtime.addresses import bound_socket
from ullage_runtime.server import Server


class WorkerDoor:
    """Opened for the first who needs it, on loopback, with a token that only they are given."""

    def __init__(self, app: Callable[[Callable[[], str]], FastAPI]) -> None:
        self._app = app
        self._token = secrets.token_urlsafe(32)
        self._opening = asyncio.Lock()
        self._server: Server | None = None

    async def address(self) -> tuple[str, str]:
        """Return its URL and token."""
        async with self._opening:
            if self._server is None:
                server = Server(self._app(lambda: self._token), bound_socket("127.0.0.1", 0))
                await server.start()
                self._server = server
        return f"http://127.0.0.1:{self._server.port}", self._token

    async def close(self) -> None:
        """Close it."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
