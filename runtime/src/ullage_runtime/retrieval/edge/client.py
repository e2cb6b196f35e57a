"""Requests to a shards' owner: HTTP/1.1 over connections that stay open, and no more of it.

Both ends are ours and on one machine. A search takes the engine no longer than a general client,
with its redirects, proxies, cookies and encodings, takes to carry it there and back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

CONNECTIONS: Final = 32
"""Requests under way at once; others wait, as the owner would have them do anyway."""
IDLE_SECONDS: Final = 30.0
"""How long a connection is kept that nobody uses: less than servers wait before they close it."""


class Answer(NamedTuple):
    """What was answered."""

    status: int
    content: bytes


Ask = Callable[[str, str, bytes, float], Awaitable[Answer]]
"""Takes a method, a path, a body, and the seconds that an answer may take."""


class Client:
    """Asks the owner at a URL; `key` is what it wants to be shown."""

    def __init__(self, url: str, key: str) -> None:
        at = urlsplit(url)
        self._at = (at.hostname or "", at.port or 0)
        self._head = f" HTTP/1.1\r\nhost: {at.netloc}\r\napi-key: {key}\r\ncontent-length: "
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._idle: deque[_Connection] = deque()

    async def ask(self, method: str, path: str, body: bytes, seconds: float) -> Answer:
        """Return the answer; raises OSError where there is none, TimeoutError for one too late."""
        head = f"{method} {path}{self._head}{len(body)}\r\n\r\n"
        async with asyncio.timeout(seconds), self._turns:
            connection = self._open() or await self._connected()
            try:
                answer = await connection.ask(head.encode("ascii") + body)
            except BaseException:
                # Its answer may still come, and would be taken for the next one's.
                connection.abort()
                raise
            self._idle.append(connection)
            return answer

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().abort()

    def _open(self) -> "_Connection | None":
        """Return an open connection, the one used last: the others grow old and are closed."""
        old = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle and self._idle[0].used < old:
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, *self._at)
        return connection


class _Connection(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self) -> None:
        self.is_open = True
        self.used = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return the answer to it."""
        if self._transport is None:
            raise ConnectionError("not connected")
        self._answered = self._loop.create_future()
        self._transport.write(request)
        answer = await self._answered
        self.used = self._loop.time()
        return answer

    def abort(self) -> None:
        """Close it at once."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write; asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on; asyncio's."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._failed(ConnectionError(f"not an answer in HTTP: {error}"))
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits; asyncio's."""
        self.is_open = False
        self._failed(error or ConnectionResetError("the connection was closed"))

    def on_body(self, part: bytes) -> None:
        """Keep a part of the answer; the parser's."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Hand the answer over; the parser's."""
        answer = Answer(self._parser.get_status_code(), b"".join(self._parts))
        self._parts.clear()
        self.is_open = self._parser.should_keep_alive()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(answer)

    def _failed(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
