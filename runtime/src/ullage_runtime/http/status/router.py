"""The WebSocket `/ws/status`."""

import asyncio
import contextlib
from typing import Final

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from ullage_runtime.core.errors import ShuttingDown
from ullage_runtime.http.disconnect import ClientLeft, while_connected
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.http.status.schema import Cursor
from ullage_runtime.http.status.service import Feed
from ullage_runtime.http.viewers import tell

router = Router()

CLOSE_SECONDS: Final = 2.0
"""How long a viewer has to take note of the end."""
GOING_AWAY: Final = 1001


@router.websocket("/ws/status")
async def ws_status(websocket: WebSocket, services: ServicesOf, after: str = "") -> None:
    """Tell what is so in this pod, then what changes, until the viewer leaves."""
    cursor = Cursor.parse(after) if after else None
    with services.viewers.one_more():
        await websocket.accept()
        feed = Feed(services.models, websocket.scope.get(KEY), cursor, services.now)
        try:
            await while_connected(
                websocket.receive, _tell(websocket, feed), over=services.drain.over
            )
        except (ClientLeft, WebSocketDisconnect):
            return
        except ShuttingDown:
            await _end(websocket, "this pod is ending")
        else:
            await _end(websocket, "connect again to go on")


async def _tell(websocket: WebSocket, feed: Feed) -> None:
    """Send the feed's messages for as long as a connection lasts."""
    await tell(
        feed.messages(),
        lambda message: websocket.send_text(message.model_dump_json(by_alias=True)),
    )


async def _end(websocket: WebSocket, why: str) -> None:
    with contextlib.suppress(TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(CLOSE_SECONDS):
            await websocket.close(GOING_AWAY, why)
