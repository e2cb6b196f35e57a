"""Requests to a shards' owner, over real sockets to what answers as an owner might."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from ullage_runtime.retrieval.edge import client as client_module
from ullage_runtime.retrieval.edge.client import Answer, Client

SECONDS = 20.0
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def asking(answering: Answering) -> AsyncIterator[Client]:
    """A client of a server that answers each of a connection's requests by a function."""

    served: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(cast("asyncio.Task[None]", asyncio.current_task()))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await answering(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client("http://127.0.0.1:{1}".format(*server.sockets[0].getsockname()), "key")
    async with server:
        try:
            yield client
        finally:
            client.close()
            await asyncio.gather(*served)


async def received(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the head of a request and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
    return head, await reader.readexactly(length)


def answer(writer: asyncio.StreamWriter, content: bytes, status: str = "200 OK") -> None:
    """Send an answer."""
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)


async def test_requests_one_after_the_other_share_a_connection_and_show_the_key() -> None:
    peers: set[object] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await received(reader)
        peers.add(writer.get_extra_info("peername"))
        answer(writer, head.encode() + body, "418 No")

    async with asking(echo) as client:
        for n in range(3):
            status, content = await client.ask("PUT", f"/a/{n}", b"x" * 200_000, SECONDS)
            head, _, body = content.partition(b"\r\n\r\n")
            assert status == 418
            assert head.startswith(f"PUT /a/{n} HTTP/1.1".encode())
            assert b"api-key: key" in head
            assert body == b"x" * 200_000
        assert len(peers) == 1
        together = [client.ask("GET", "/", b"", SECONDS) for _ in range(40)]
        assert {each.status for each in await asyncio.gather(*together)} == {418}
        assert 1 < len(peers) <= client_module.CONNECTIONS


async def test_an_answer_that_came_too_late_is_not_taken_for_the_next_ones() -> None:
    released = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await received(reader)
        if "/slow" in head:
            await released.wait()
        answer(writer, head.split(" ")[1].encode())

    async with asking(slow) as client:
        with pytest.raises(TimeoutError):
            await client.ask("GET", "/slow", b"", 0.05)
        waiting = asyncio.create_task(client.ask("GET", "/slow/too", b"", SECONDS))
        released.set()
        assert await client.ask("GET", "/quick", b"", SECONDS) == Answer(200, b"/quick")
        assert await waiting == Answer(200, b"/slow/too")


async def test_a_connection_that_ends_before_its_answer_is_told_and_another_is_made() -> None:
    requests = 0

    async def dying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await received(reader)
        requests += 1
        match requests:
            case 1:
                writer.transport.abort()
            case 2:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal")
                await writer.drain()
                writer.close()
            case 3:
                writer.write(b"SSH-2.0-OpenSSH\r\n")
            case 4:
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1")
                await writer.drain()
                writer.close()
            case _:
                answer(writer, b"whole")

    async with asking(dying) as client:
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await client.ask("GET", "/", b"", SECONDS)
        assert await client.ask("GET", "/", b"", SECONDS) == Answer(200, b"1")
        assert await client.ask("GET", "/", b"", SECONDS) == Answer(200, b"whole")


async def test_a_connection_that_nobody_used_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers: list[object] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await received(reader)
        peers.append(writer.get_extra_info("peername"))
        answer(writer, b"")

    async with asking(note) as client:
        await client.ask("GET", "/", b"", SECONDS)
        monkeypatch.setattr(client_module, "IDLE_SECONDS", -1.0)
        await client.ask("GET", "/", b"", SECONDS)
    assert len(set(peers)) == 2


async def test_where_nobody_listens_is_told_as_such() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError, match="Connect call failed"):
        await Client(url, "key").ask("GET", "/", b"", SECONDS)
