"""How far an operation is, as events: at once, and again whenever it has come further.

There is no queue. Each event is what is so when it can be sent: whoever reads slowly misses what
lies between, never how it ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ullage_runtime.core.errors import ShuttingDown
from ullage_runtime.http import sse
from ullage_runtime.http.disconnect import while_connected
from ullage_runtime.http.retrieval.service import operation_object
from ullage_runtime.http.viewers import Viewers, read_in_time, tell
from ullage_runtime.retrieval.ingest.documents import Operation
from ullage_runtime.retrieval.ingest.ingestion import Ingestion

PAUSE_SECONDS: Final = 0.2
"""Least time between two events: documents may be done faster than anybody wants to hear of it."""


class ProgressStream(Response):
    """An operation's events, until it is completed or there is nobody to tell or to be told.

    It ends whole when its collection closes, and as soon as `over` is set: documents may take much
    longer than a pod may take to end.
    """

    def __init__(
        self,
        ingestion: Ingestion,
        operation: Operation,
        watchers: Viewers,
        *,
        heartbeat: float,
        over: asyncio.Event,
    ) -> None:
        super().__init__()
        self._ingestion = ingestion
        self._operation = operation
        self._watchers = watchers
        self._heartbeat = heartbeat
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; raises Overloaded before anything is sent."""
        del scope
        with self._watchers.one_more():
            await send({"type": "http.response.start", "status": 200, "headers": list(sse.HEADERS)})
            told = tell(self._events(), partial(_send, send))
            with contextlib.suppress(ShuttingDown):
                await while_connected(receive, told, over=self._over)
            await read_in_time(send({"type": "http.response.body", "body": b""}))

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


async def _send(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})
