"""How far an operation is, as events: at once, and again whenever it has come further.

There is no queue. Each event is what is so when it can be sent: whoever reads slowly misses what
lies between, never how it ends.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ullage_runtime.core.errors import Overloaded
from ullage_runtime.http import sse
from ullage_runtime.http.disconnect import ClientLeft, while_connected
from ullage_runtime.http.retrieval.service import operation_object
from ullage_runtime.http.status.viewers import Viewers
from ullage_runtime.retrieval.ingest.documents import Operation
from ullage_runtime.retrieval.ingest.ingestion import Ingestion

log = structlog.stdlib.get_logger(__name__)

MAX_WATCHERS: Final = 64
"""Streams of one process at a time."""
PAUSE_SECONDS: Final = 0.2
"""Least time between two events: documents may be done faster than anybody wants to hear of it."""
SEND_SECONDS: Final = 30.0
"""How long a client may take to read what the connection's buffers have no room for."""
LIFE_SECONDS: Final = 600.0
"""How long one stream lasts: who comes back shows its key again."""


class ProgressStream(Response):
    """An operation's events until it is completed, the client leaves, or its collection closes."""

    def __init__(
        self, ingestion: Ingestion, operation: Operation, watchers: Viewers, heartbeat: float
    ) -> None:
        super().__init__()
        self._ingestion = ingestion
        self._operation = operation
        self._watchers = watchers
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; raises Overloaded before anything is sent."""
        del scope
        if self._watchers.count >= MAX_WATCHERS:
            raise Overloaded(
                f"{MAX_WATCHERS} clients are told of operations already; ask now and then instead",
                retry_after=10,
            )
        with self._watchers.one_more():
            await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
        with suppress(TimeoutError):
            async with asyncio.timeout(LIFE_SECONDS), aclosing(self._events()) as events:
                async for event in events:
                    await _sent(send, event)
        await _sent(send, b"", more=False)

    async def _events(self) -> AsyncGenerator[bytes]:
        told = self._operation
        yield _event(told)
        while told.finished is None:
            await asyncio.sleep(PAUSE_SECONDS)
            found = await self._ingestion.further(told, self._heartbeat)
            if found is None:
                return
            yield sse.HEARTBEAT if found == told else _event(found)
            told = found


def _event(operation: Operation) -> bytes:
    return sse.event(operation_object(operation).model_dump(mode="json"))


async def _sent(send: Send, part: bytes, *, more: bool = True) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": part, "more_body": more})
    except TimeoutError:
        log.info("a client reads no more", seconds=SEND_SECONDS)
        raise ClientLeft from None
