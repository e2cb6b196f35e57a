"""Addresses that a process listens on."""

import errno
import socket


class AddressInUse(Exception):  # noqa: N818 - named after what is so
    """Something else listens on the address."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is in use")
        self.host = host
        self.port = port


class AddressUnusable(Exception):  # noqa: N818 - likewise
    """The address cannot be listened on."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises AddressInUse or AddressUnusable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, since asyncio lets small answers leave at once on sockets that say they are TCP's only.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(host, port) from error
        raise AddressUnusable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return sock
