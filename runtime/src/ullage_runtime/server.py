"""One uvicorn server inside an event loop that is not its own."""

import asyncio
import contextlib
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

START_SECONDS = 10.0
STOP_SECONDS = 5.0
"""How long an ending server waits for connections that should have ended already."""
KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep idle connections, so that they, not we, close them."""
WS_MESSAGE_BYTES = 4096
"""Longest message from a client of a WebSocket: ours only listen."""


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the composition root, which ends several servers in order."""
        yield


class _WebSockets(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        """Send on; uvicorn would log a refused handshake as a fault unless told that it is over."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True


class Server:
    """An application served on a TCP socket, or on a Unix socket of this machine's user."""

    def __init__(self, app: ASGIApp, at: socket.socket | pathlib.Path) -> None:
        self._sockets = [at] if isinstance(at, socket.socket) else None
        config = uvicorn.Config(
            app,
            uds=str(at) if isinstance(at, pathlib.Path) else None,
            loop="none",
            http="httptools",
            ws=_WebSockets,
            ws_max_size=WS_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._uvicorn = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None
        self.port = at.getsockname()[1] if isinstance(at, socket.socket) else 0

    async def start(self) -> None:
        """Begin to accept connections."""
        self._task = asyncio.create_task(self._uvicorn.serve(self._sockets))
        async with asyncio.timeout(START_SECONDS):
            while not self._uvicorn.started:
                if self._task.done():
                    self._task.result()
                    raise RuntimeError("the server ended before it began")
                await asyncio.sleep(0.01)

    def begin_stop(self) -> None:
        """Accept no more connections and close idle ones; those at work go on."""
        self._uvicorn.should_exit = True

    async def stop(self) -> None:
        """Close everything, connections that are still at work after a grace period too."""
        self.begin_stop()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._uvicorn.force_exit = True
            await asyncio.wait({self._task}, timeout=1)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
