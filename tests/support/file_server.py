"""A real HTTP server on a free loopback port that misbehaves as it is told.

It speaks just enough HTTP/1.1 to serve files with ranges, validators and conditional requests, and
each request may meet one scripted `Fault`.
"""

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeVar

S = TypeVar("S", bound="FileServer")

_RANGE = re.compile(r"bytes=(\d+)-")
_CHUNK = 64 << 10


@dataclass(slots=True)
class Served:
    """A file behind a path."""

    data: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every answer, redirects included."""
    location: str | None = None
    """Where GET and HEAD are redirected to instead."""
    token: str | None = None
    """Bearer token without which the answer is 401."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request instead of a whole answer."""

    cut_after: int | None = None
    """Body bytes after which the connection is reset."""
    hold_after: int | None = None
    """Body bytes after which nothing more comes until the client leaves."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    declared_length: int | None = None
    ignore_range: bool = False
    silent: bool = False
    """No answer at all until the client leaves."""


@dataclass(slots=True)
class Seen:
    """One request, and what was sent for it."""

    method: str
    path: str
    headers: dict[str, str]
    start: int = 0
    sent: int = 0
    status: int = 0


class FileServer:
    """The server; `url(path)` is where a file is."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.faults: deque[Fault] = deque()
        self.seen: list[Seen] = []
        self.port = 0
        self.scheme = "http"

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def add(self, path: str, data: bytes, **options: object) -> str:
        self.files[path] = Served(data, **options)  # type: ignore[arg-type]
        return hashlib.sha256(data).hexdigest()

    def sent_bytes(self) -> int:
        return sum(request.sent for request in self.seen)

    def gets(self) -> list[Seen]:
        return [request for request in self.seen if request.method == "GET"]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        seen = Seen(method, path, {name.lower(): value for name, value in headers.items()})
        self.seen.append(seen)
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.silent:
            await reader.read()
            return False
        return await self._answer(seen, fault, reader, writer)

    async def _answer(
        self,
        seen: Seen,
        fault: Fault,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        status, headers, body = await self._planned(seen, fault)
        seen.status = status
        headers |= fault.headers
        if fault.declared_length is not None:
            headers["Content-Length"] = str(fault.declared_length)
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await writer.drain()
        if seen.method == "HEAD":
            return True
        limits = [n for n in (fault.cut_after, fault.hold_after) if n is not None]
        body = body[: min(limits)] if limits else body
        for at in range(0, len(body), _CHUNK):
            writer.write(body[at : at + _CHUNK])
            await writer.drain()
            seen.sent += len(body[at : at + _CHUNK])
        if fault.hold_after is not None:
            await reader.read()
        return not limits and fault.declared_length is None

    async def _planned(self, seen: Seen, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        if fault.status is not None:
            return fault.status, {"Content-Length": "0"}, b""
        return await self._found(seen, fault)

    async def _found(self, seen: Seen, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer that nothing stands in the way of."""
        file = self.files.get(seen.path.split("?")[0])
        if file is None:
            return 404, {"Content-Length": "0"}, b""
        if file.token and seen.headers.get("authorization") != f"Bearer {file.token}":
            return 401, {"Content-Length": "0"}, b""
        if file.location:
            return 302, {"Content-Length": "0", "Location": file.location, **file.headers}, b""
        headers = dict(file.headers)
        if file.etag:
            headers["ETag"] = file.etag
        if file.last_modified:
            headers["Last-Modified"] = file.last_modified
        if _is_unchanged(seen, file):
            return 304, headers, b""
        return self._body(seen, file, fault, headers)

    def _body(
        self, seen: Seen, file: Served, fault: Fault, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        asked = _RANGE.fullmatch(seen.headers.get("range", ""))
        current = seen.headers.get("if-range") in {None, file.etag, file.last_modified}
        size = len(file.data)
        if asked and file.ranges and current and not fault.ignore_range:
            seen.start = int(asked[1])
            if seen.start >= size:
                return 416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, b""
            headers["Content-Range"] = f"bytes {seen.start}-{size - 1}/{size}"
            headers["Content-Length"] = str(size - seen.start)
            return 206, headers, file.data[seen.start :]
        headers["Content-Length"] = str(size)
        return 200, headers, file.data


def _is_unchanged(seen: Seen, file: Served) -> bool:
    same_tag = file.etag is not None and seen.headers.get("if-none-match") == file.etag
    since = seen.headers.get("if-modified-since")
    return same_tag or (file.last_modified is not None and since == file.last_modified)


@contextlib.asynccontextmanager
async def file_server(
    host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[FileServer]:
    """Run a server for the length of a block."""
    async with listening(FileServer(), host, tls) as served:
        yield served


@contextlib.asynccontextmanager
async def listening(
    served: S, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[S]:
    """Have a server listen for the length of a block."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):  # as the block below ends it
            await served.handle(reader, writer)

    server = await asyncio.start_server(handle, host, 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    served.scheme = "https" if tls else "http"
    try:
        yield served
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
