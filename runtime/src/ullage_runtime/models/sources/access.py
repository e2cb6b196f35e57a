"""What a request may show and where: credentials and trust, bound to one origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what credentials and trust are bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> "Origin":
        """Return the origin of a URL."""
        return cls(url.scheme, url.host, url.port or _DEFAULT_PORTS.get(url.scheme, 0))


class Authorizer(Protocol):
    """Proves to one origin who asks, where that takes more than a token."""

    def headers(self, method: str, url: httpx.URL) -> Mapping[str, str]:
        """Return the headers that prove it for one request."""
        ...

    async def renewed(self, refusal: httpx.Response) -> bool:
        """Whether, after the origin's 401, there is something new to show it."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may show and where: headers for one origin, and whether that is trusted."""

    origin: Origin | None = None
    headers: tuple[tuple[str, str], ...] = ()
    """Sent to the origin only, such as a token."""
    trusted: bool = False
    """Whether an admin named the origin, so that the profile's rules do not apply to it."""
    authorizer: Authorizer | None = None
    """Asked for the origin's credentials, instead of the folder of credentials."""
