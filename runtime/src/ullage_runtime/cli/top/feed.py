"""The client of `/ws/status`: connects, and connects again where it left off."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from ullage_runtime.cli.client import CONNECT_SECONDS, HINTS
from ullage_runtime.cli.console import CliError

SILENCE_SECONDS: Final = 30.0
"""Silence after which a pod, which speaks every 10 s, is taken for gone."""
MAX_MESSAGE_BYTES: Final = 64 << 20
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0

Message = dict[str, Any]


def pause_before(attempt: int) -> float:
    """Return how long to wait before an attempt, the first being 1: longer each time."""
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return pause * random.uniform(0.75, 1.0)  # noqa: S311 - no secret


class StatusFeed:
    """A pod's live view; `on_lost` is told why a connection ended and when the next is tried."""

    def __init__(
        self, url: str, api_key: str | None, on_lost: Callable[[str, float], None]
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._on_lost = on_lost
        self._cursor = ""

    async def messages(
        self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> AsyncGenerator[Message]:
        """Yield messages without end.

        Raises CliError when the first connection fails, or when a pod refuses for good.
        """
        attempt = 0
        while True:
            why = "the connection ended"
            try:
                async for message in self._connection():
                    attempt = 0
                    self._cursor = message["cursor"]
                    yield message
            except InvalidStatus as error:
                why = self._refused(error)
            except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake) as error:
                why = _in_words(error)
            except InvalidURI as error:
                raise CliError(f"{self.url} is no address of a server") from error
            if not self._cursor:
                raise CliError(
                    f"{self.url}: {why}",
                    "start a server with `ullage up FILE`, or name another with --url",
                )
            attempt += 1
            pause = pause_before(attempt)
            self._on_lost(why, pause)
            await sleep(pause)

    async def _connection(self) -> AsyncGenerator[Message]:
        address = self.url.replace("http", "ws", 1) + "/ws/status"
        if self._cursor:
            address += f"?after={self._cursor}"
        async with connect(
            address,
            additional_headers=self._headers,
            open_timeout=CONNECT_SECONDS,
            max_size=MAX_MESSAGE_BYTES,
        ) as connection:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    text = await connection.recv()
                yield json.loads(text)

    def _refused(self, error: InvalidStatus) -> str:
        """Return why a pod does not let us look now; raises CliError if it never will."""
        status = error.response.status_code
        try:
            message = str(json.loads(error.response.body or b"")["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"the server answered {status}"
        if status in _FINAL:
            raise CliError(message, HINTS.get(status)) from error
        return message


_FINAL: Final = frozenset({400, 401, 403, 404})
"""Statuses that another attempt would get again."""


def _in_words(error: Exception) -> str:
    match error:
        case ConnectionClosed(rcvd=frame) if frame is not None and frame.reason:
            return frame.reason
        case ConnectionClosed():
            return "the connection ended"
        case TimeoutError():
            return "the server is silent"
        case ConnectionRefusedError():
            return "nothing answers"
        case _:
            return str(error) or type(error).__name__
