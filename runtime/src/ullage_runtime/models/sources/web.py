"""Requests over HTTP: redirects, credentials and the profile's rules, checked at every hop."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from ullage_api.profile import RuntimeSettings
from ullage_runtime.models.sources.access import Access, Origin
from ullage_runtime.models.sources.credentials import credential
from ullage_runtime.models.sources.dialing import Dialing, timeouts
from ullage_runtime.models.sources.failures import refused
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.threads import in_thread

_SCHEMES = {"http", "https"}


class Web:
    """One fetch's connections."""

    def __init__(
        self,
        dialing: Dialing,
        settings: RuntimeSettings,
        limits: Limits,
        credentials: Path | None = None,
    ) -> None:
        self._credentials = credentials
        self._dialing = dialing
        self._settings = settings
        self._limits = limits
        self._clients: dict[tuple[str | None, bool], httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        access: Access,
        leave_origin: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, follow redirects, and yield the last response with its body unread.

        With `leave_origin` off, a redirect to another origin is yielded, not followed. Raises
        LoadError for what the profile refuses, and httpx's errors.
        """
        target = httpx.URL(url)
        for _ in range(self._limits.redirects + 1):
            response = await self._answer(method, target, headers, access)
            try:
                if not response.has_redirect_location:
                    yield response
                    return
                following = _joined(target, response.headers["Location"])
                if not leave_origin and Origin.of(following) != Origin.of(target):
                    yield response
                    return
            finally:
                await response.aclose()
            target = following
        raise refused(f"{httpx.URL(url).host} redirects more than {self._limits.redirects} times")

    async def _answer(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], access: Access
    ) -> httpx.Response:
        """Return an origin's answer; a refusal that other credentials may turn is tried once."""
        response = await self._send(method, url, headers, access)
        authorizer = access.authorizer
        if (
            response.status_code == HTTPStatus.UNAUTHORIZED
            and authorizer
            and Origin.of(url) == access.origin
        ):
            try:
                renewed = await authorizer.renewed(response)
            except BaseException:
                await response.aclose()
                raise
            if renewed:
                await response.aclose()
                return await self._send(method, url, headers, access)
        return response

    async def _send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], access: Access
    ) -> httpx.Response:
        own = Origin.of(url) == access.origin
        trusted = own and access.trusted
        if not trusted:
            self.check_scheme(url)
        client = self._client(url, checked=not (trusted or self._settings.allow_private_addresses))
        shown = {**headers, **(dict(access.headers) if own else {})}
        if own and access.authorizer:
            shown |= access.authorizer.headers(method, url)
        elif token := await in_thread(credential, self._credentials, url.host):
            shown["Authorization"] = f"Bearer {token}"
        request = client.build_request(method, url, headers=shown)
        return await client.send(request, stream=True)

    def check_scheme(self, address: httpx.URL | str) -> None:
        """Raise LoadError unless the profile allows the address's scheme."""
        url = httpx.URL(address)
        if url.scheme not in _SCHEMES or not url.host:
            raise refused(f"the source redirects to {url.scheme}:, which is not followed")
        if url.scheme == "http" and not self._settings.allow_http:
            raise refused(
                f"http://{url.host} is refused because it is not encrypted; use https://, or let "
                "the platform's admins set runtime.allowHttp in the pool's profile"
            )

    def _client(self, url: httpx.URL, *, checked: bool) -> httpx.AsyncClient:
        proxy = self._dialing.proxy_for(url)
        if proxy and checked:
            self._dialing.check_literal(url.host)
        key = (proxy, checked)
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                transport=self._dialing.transport(proxy, checked=checked),
                timeout=timeouts(self._limits),
                trust_env=False,
                headers={
                    "User-Agent": f"ullage/{version('ullage-runtime')}",
                    # Ranges, lengths and digests are those of the file, so no coding on the way.
                    "Accept-Encoding": "identity",
                },
            )
        return self._clients[key]


def _joined(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location).copy_with(fragment=None)
    except httpx.InvalidURL as error:
        raise refused(f"{url.host} redirects to something that is no URL: {error}") from error
