"""httpx's requests over aiohttp's connections, which cost a third of the processor's time.

A search on this machine takes less time in the engine than httpx's own connections take to carry it
there and back.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import httpx

KEEP_ALIVE_SECONDS: Final = 5.0
"""No longer than servers and proxies keep idle connections, so that none ends as it is used."""
LARGE_BODY: Final = 1024 * 1024
"""What is longer is sent in pieces, so that others have a turn in between."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A transport for whole answers, as stores give them; `connections` at most at once."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read all of its answer; raises httpx's errors."""
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            connect=limits.get("pool"),
            sock_connect=limits.get("connect"),
            sock_read=limits.get("read"),
        )
        body = await request.aread()
        with _told_as_httpx_does():
            async with self._opened().request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=io.BytesIO(body) if len(body) > LARGE_BODY else body or None,
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                content = await answer.read()
        return httpx.Response(
            answer.status, headers=answer.raw_headers, content=content, request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        # It belongs to the event loop that runs, and there is none yet when it is made.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    ssl=httpx.create_ssl_context(trust_env=False),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


@contextmanager
def _told_as_httpx_does() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.NetworkError(str(error) or repr(error)) from error
