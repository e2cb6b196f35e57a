"""Those who are told what goes on for as long as they listen: how many, how long, how slowly."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Final, TypeVar

import structlog

from ullage_runtime.core.errors import Overloaded
from ullage_runtime.http.disconnect import ClientLeft

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

MAX_VIEWERS: Final = 64
"""Connections of one kind and process at a time."""
SEND_SECONDS: Final = 30.0
"""How long a client may take to read what the connection's buffers have no room for."""
LIFE_SECONDS: Final = 600.0
"""How long one connection lasts: who comes back shows its key again."""


class Viewers:
    """The count of open connections, which has a limit; `are_there` says what so many do."""

    def __init__(self, are_there: str) -> None:
        self.count = 0
        self._are_there = are_there

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one viewer for as long as it is there; raises Overloaded when there is no room."""
        if self.count >= MAX_VIEWERS:
            raise Overloaded(f"{MAX_VIEWERS} {self._are_there}", retry_after=10)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


async def tell(messages: AsyncGenerator[T], send: Callable[[T], Awaitable[None]]) -> None:
    """Send messages until there are no more, or the connection's time is over.

    Raises ClientLeft for a client that reads nothing.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIFE_SECONDS), contextlib.aclosing(messages):
            async for message in messages:
                await read_in_time(send(message))


async def read_in_time(sending: Awaitable[None]) -> None:
    """Await what is being sent; raises ClientLeft where a client takes too long to read it."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await sending
    except TimeoutError:
        log.info("a client reads no more", seconds=SEND_SECONDS)
        raise ClientLeft from None
