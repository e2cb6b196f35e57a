"""Which addresses are dialled: a host is resolved once, checked, and that very address dialled.

Checking a name and letting the HTTP client resolve it again would leave a gap in which a hostile
name server answers differently (DNS rebinding). TLS still asks for, and verifies, the host's name.

Behind a proxy (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`) the proxy resolves, so only addresses
written as such, and `localhost`, can be checked here; what else may be reached is the proxy's rule.
"""

import asyncio
import ipaddress
import socket
import ssl
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpcore
import httpx

from ullage_runtime.models.sources.failures import refused
from ullage_runtime.models.sources.limits import Limits

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
AddressRule = Callable[[IPAddress], str | None]
"""Returns what is wrong with an address, such as `loopback`, or None."""

SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HINT = "the pool's profile refuses such sources (runtime.allowPrivateAddresses)"


def private_kind(address: IPAddress) -> str | None:
    """Return what kind of non-public address this is, or None for a public one.

    IPv6 forms that carry an IPv4 address (mapped, 6to4, NAT64, Teredo) are judged by that one.
    """
    inner = _embedded(address)
    if inner is not None:
        return private_kind(inner)
    kinds = (
        ("unspecified", address.is_unspecified),
        ("loopback", address.is_loopback),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("private", address.is_private),
        ("reserved", address.is_reserved or not address.is_global),
    )
    return next((kind for kind, applies in kinds if applies), None)


def _embedded(address: IPAddress) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo


def literal_address(host: str) -> IPAddress | None:
    """Return the address that a host is written as, in any notation that resolvers accept."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433
    except OSError:
        return None


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Dialing:
    """How connections are made: resolver, address rule, proxies and trust."""

    resolve: Resolver = resolve
    rule: AddressRule = private_kind
    proxies: Mapping[str, str] = field(default_factory=urllib.request.getproxies)
    """Proxy by scheme, `no` for the hosts without one, as the environment says."""
    tls: ssl.SSLContext = field(default_factory=httpx.create_ssl_context)

    def proxy_for(self, url: httpx.URL) -> str | None:
        """Return the proxy that requests to a URL go through, or None."""
        proxy = self.proxies.get(url.scheme) or self.proxies.get("all")
        if not proxy or urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
            url.netloc.decode("ascii"), dict(self.proxies)
        ):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def check_literal(self, host: str) -> None:
        """Raise LoadError if a host is written as an address, or name, that may not be dialled."""
        address = literal_address(host)
        kind = self.rule(address) if address else None
        if address is None and (host == "localhost" or host.endswith(".localhost")):
            kind = "loopback"
        if kind:
            raise refused(f"{host} is a {kind} address; {_HINT}")

    def transport(self, proxy: str | None, *, checked: bool) -> httpx.AsyncBaseTransport:
        """Return a transport; a `checked` one without proxy refuses non-public addresses."""
        if proxy:
            return httpx.AsyncHTTPTransport(verify=self.tls, proxy=proxy)
        if not checked:
            return httpx.AsyncHTTPTransport(verify=self.tls)
        return _CheckedTransport(_CheckedBackend(self), self.tls)


def timeouts(limits: Limits) -> httpx.Timeout:
    """Return the limits' waits in httpx's terms."""
    return httpx.Timeout(limits.read_seconds, connect=limits.connect_seconds)


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport over a pool that dials through a checked backend."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls)
        self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=backend)


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a host, refuses it if any of its addresses is not public, dials what it resolved."""

    def __init__(self, dialing: Dialing) -> None:
        self._dialing = dialing
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection to a host's checked addresses, in their order, until one answers."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await self._addresses(host, port, timeout):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int, seconds: float | None) -> Sequence[str]:
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._dialing.resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} could not be resolved in time") from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        for address in addresses:
            kind = self._dialing.rule(ipaddress.ip_address(address))
            if kind:
                raise refused(f"{host} leads to {address}, a {kind} address; {_HINT}")
        return addresses

    async def sleep(self, seconds: float) -> None:
        """Wait, as httpcore's pool asks between its attempts."""
        await self._inner.sleep(seconds)
