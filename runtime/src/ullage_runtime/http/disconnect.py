"""Noticing that the client has left, while something else is being waited for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from ullage_runtime.http.draining import shutting_down

T = TypeVar("T")


class ClientLeft(Exception):  # noqa: N818 - it is no error of anybody
    """The client closed the connection; there is nobody left to answer."""


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, T], *, over: asyncio.Event | None = None
) -> T:
    """Return what `work` returns, or cancel it and raise ClientLeft when the client leaves.

    The request's body must have been read: what `receive` yields next is the disconnect. With
    `over`, the wait also ends, with ShuttingDown, when that event is set.
    """
    task = asyncio.ensure_future(work)
    watchers: list[asyncio.Task[Any]] = [asyncio.ensure_future(_left(receive))]
    if over is not None:
        watchers.append(asyncio.ensure_future(over.wait()))
    try:
        await asyncio.wait({task, *watchers}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if watchers[0].done():
            watchers[0].result()
            raise ClientLeft
        raise shutting_down()
    finally:
        for pending in (task, *watchers):
            pending.cancel()
        await asyncio.gather(task, *watchers, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
        pass
