"""Somebody who looks at a pod's live view: `/ws/status` on a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ullage_runtime.app import Runtime

PATIENCE = 60.0

Message = dict[str, Any]


class Viewer:
    """One connection, and what it knows by now: each message merged into what came before."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.devices: dict[str, Any] = {}
        self.models: dict[str, Any] = {}
        self.decisions: list[Any] = []
        self.cursor = ""

    async def next(self) -> Message:
        async with asyncio.timeout(PATIENCE):
            message: Message = json.loads(await self.connection.recv())
        self.cursor = message["cursor"]
        if message["object"] == "status.state":
            self.devices, self.models = {}, {}
        for known, entries in (
            (self.devices, message["devices"]),
            (self.models, message["models"]),
        ):
            for entry in entries:
                known.setdefault(entry["id"], {}).update(entry)
        for name in message["gone"]:
            self.models.pop(name, None)
        self.decisions = message["decisions"] + self.decisions
        return message

    async def until(self, holds: Callable[[], bool]) -> Message:
        """Read on until something holds; return the message that made it so."""
        while True:
            message = await self.next()
            if holds():
                return message

    async def end(self) -> tuple[int, str]:
        """Read on until the connection is closed; return the code and the reason."""
        async with asyncio.timeout(PATIENCE):
            await self._read_on()
        frame = self.connection.protocol.close_rcvd
        assert frame is not None
        return frame.code, frame.reason

    async def _read_on(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await self.connection.recv())
                self.cursor = message["cursor"]


@contextlib.asynccontextmanager
async def viewing(
    runtime: Runtime, *, after: str = "", key: str = "", **headers: str
) -> AsyncIterator[Viewer]:
    url = f"{runtime.url.replace('http', 'ws', 1)}/ws/status" + (f"?after={after}" if after else "")
    given = {"Authorization": f"Bearer {key}"} if key else {}
    async with connect(url, additional_headers={**given, **headers}, proxy=None) as connection:
        yield Viewer(connection)
