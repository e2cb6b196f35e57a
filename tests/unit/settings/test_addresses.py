"""Sockets that a process listens on."""

import asyncio
import socket

import pytest

from ullage_runtime.addresses import AddressInUse, bound_socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_small_answers_leave_at_once(host: str) -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        accepted.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = bound_socket(host, 0)
    async with await asyncio.start_server(connected, sock=listening), asyncio.timeout(10):
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        assert await accepted, "Nagle's algorithm would hold them back for 40 ms"
        writer.close()


def test_a_taken_port_is_told() -> None:
    taken = bound_socket("127.0.0.1", 0)
    taken.listen()
    port = taken.getsockname()[1]
    with taken, pytest.raises(AddressInUse, match=str(port)):
        bound_socket("127.0.0.1", port)
