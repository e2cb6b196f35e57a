"""What every request passes through, as plain ASGI: streams and disconnects go through untouched.

From the outside in: RequestContext, UnexpectedErrors, LiveCors, Authentication or TokenCheck,
Admission, BodyLimit, and then the application.
"""

import asyncio
import hmac
import re
import time
import uuid
from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ullage_runtime.core.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidRequest,
    Overloaded,
    ServingError,
    Unauthorized,
)
from ullage_runtime.http.auth import ANYBODY, KeyRing
from ullage_runtime.http.disconnect import ClientLeft
from ullage_runtime.http.draining import Drain, shutting_down
from ullage_runtime.http.errors import error_response, unexpected
from ullage_runtime.http.limits import Limits
from ullage_runtime.http.metrics import Metrics
from ullage_runtime.http.rate_limits import HEADERS as RATE_LIMIT_HEADERS

log = structlog.stdlib.get_logger("ullage.access")

PROBES: Final = frozenset({"/livez", "/readyz"})
"""Paths that need no key and no room, and that are logged only when debugging."""

STREAMED: Final = re.compile(r"/v1/collections/[^/]+/points/import")
"""Paths whose handlers read bodies of any length by themselves, part by part."""

KEY: Final = "ullage.key"
"""Where the caller's key lies in the ASGI scope."""
MODEL: Final = "ullage.model"
"""Where the answering model's name lies in the ASGI scope, for the log."""

ADAPTER: Final = "ullage.adapter"
"""Where the name of the chosen adapter lies in the ASGI scope; empty for none."""

ALLOWANCE: Final = "ullage.allowance"
"""Where a limited model's allowance lies in the ASGI scope, for the headers."""

CONNECTIONS: Final = frozenset({"http", "websocket"})
STARTS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.http.response.start"}
)
"""Messages that begin an answer."""
SWITCHED: Final = 101
"""Status of an accepted WebSocket."""
INTERNAL_ERROR: Final = 1011
"""A WebSocket's code for an end that nobody foresaw."""

LEFT = 499
"""Status in log and metrics of a request whose client left, as others write it too."""

_SANE_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")

DISCARD_BYTES: Final = 128 << 20
DISCARD_SECONDS: Final = 5.0
"""How much of a refused body is still read, so that the client gets to see the refusal."""


class RequestContext:
    """Gives each request its id and its headers, and writes its line in the log and its metrics."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, surface: str) -> None:
        self._app = app
        self._metrics = metrics
        self._surface = surface

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in CONNECTIONS:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.match(given) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = LEFT
        started = time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] in STARTS:
                status = message.get("status", SWITCHED)
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if (allowance := scope.get(ALLOWANCE)) is not None:
                    headers.update(dict(allowance.headers()))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientLeft:
            status = LEFT
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope.get("method", "GET")
        self._metrics.request(self._surface, method, route, status, seconds)
        quiet = scope["path"] in PROBES or scope["path"] == "/metrics"
        key = scope.get(KEY)
        model = scope.get(MODEL)
        (log.debug if quiet else log.info)(
            "request",
            method=method,
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
            **({"tenant": key.id} if key else {}),
            **({"model": model} if model else {}),
        )


class UnexpectedErrors:
    """Turns what nobody foresaw into a 500 in OpenAI's shape; the log has the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in STARTS
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientLeft:
            raise
        except Exception as error:  # noqa: BLE001 - this is the outermost guard
            answer = unexpected(error)
            if not started:
                await error_response(answer)(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": INTERNAL_ERROR})


class LiveCors:
    """CORS without credentials, for the origins that are in effect when a request comes.

    Browsers let any page open a WebSocket, so a page of another origin is refused here.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._origins: tuple[str, ...] | None = None
        self._cors: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it when it is a preflight."""
        origins = self._limits.cors_origins
        if origins != self._origins:
            self._origins = origins
            self._cors = CORSMiddleware(
                self._app,
                allow_origins=origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=["*"],
                expose_headers=["X-Request-Id", "Retry-After", "Cache-Status", *RATE_LIMIT_HEADERS],
            )
        if scope["type"] == "websocket" and (foreign := self._foreign_origin(scope)):
            error = Forbidden(f"pages of {foreign} may not read this")
            await error_response(error)(scope, receive, send)
            return
        await self._cors(scope, receive, send)

    def _foreign_origin(self, scope: Scope) -> str | None:
        """Return the origin of a page that may not read what is here; None for all others."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = {"*", origin} & set(self._origins or ())
        if not origin or allowed or origin.partition("://")[2] == headers.get("host"):
            return None
        return origin


class Authentication:
    """Lets in who has a key; probes need none."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its key in the scope, or refuse it."""
        if scope["type"] in CONNECTIONS and scope["path"] not in PROBES:
            try:
                scope[KEY] = (
                    self._keys.authenticate(Headers(scope=scope).get("authorization"))
                    if self._keys
                    else ANYBODY
                )
            except ServingError as error:
                await error_response(error)(scope, receive, send)
                return
            structlog.contextvars.bind_contextvars(tenant=scope[KEY].id)
        await self._app(scope, receive, send)


class TokenCheck:
    """Lets in who knows the pool's token; `open_paths` need none."""

    def __init__(
        self, app: ASGIApp, *, token: Callable[[], str], open_paths: frozenset[str]
    ) -> None:
        self._app = app
        self._token = token
        self._open = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] in CONNECTIONS and scope["path"] not in self._open:
            given = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ")
            expected = self._token()
            if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
                error = Unauthorized("the pool's token is missing or wrong")
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Admission:
    """Works on so many requests at once and no more, and on none once the process is ending."""

    def __init__(self, app: ASGIApp, *, limits: Limits, drain: Drain, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._drain = drain
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal()
        if refusal is not None:
            await error_response(refusal)(scope, receive, send)
            return
        self._drain.entered()
        self._metrics.in_flight.set(self._drain.in_flight)
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.left()
            self._metrics.in_flight.set(self._drain.in_flight)

    def _refusal(self) -> ServingError | None:
        if self._drain.stopping.is_set():
            return shutting_down()
        limit = self._limits.max_concurrent_requests
        if self._drain.in_flight >= limit:
            return Overloaded(
                f"this pod works on {limit} requests at once and has as many", retry_after=1
            )
        return None


class BodyLimit:
    """Reads a request's body, no longer than allowed and no slower, before anything looks at it.

    Those of STREAMED are read by their handlers, as they come.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: Callable[[], int], seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or refuse it."""
        if scope["type"] != "http" or scope["method"] not in {"POST", "PUT", "PATCH"}:
            await self._app(scope, receive, send)
            return
        if STREAMED.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        arrival = _Arrival(receive)
        try:
            body = await self._read(scope, arrival)
        except ServingError as error:
            if "expect" not in Headers(scope=scope):
                await arrival.discard()
            response = error_response(error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, scope: Scope, arrival: "_Arrival") -> bytes:
        limit = self._max_bytes()
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise BodyTooLarge(f"the body has {int(declared)} bytes; at most {limit} are allowed")
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while not arrival.complete:
                    body += await arrival.part()
                    if len(body) > limit:
                        raise BodyTooLarge(
                            f"the body has more than the {limit} bytes that are allowed"
                        )
        except TimeoutError:
            raise InvalidRequest(
                f"the body did not arrive within {self._seconds:g} seconds"
            ) from None
        return bytes(body)


class _Arrival:
    """A request's body as it comes in."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def part(self) -> bytes:
        """Return the next part; raises ClientLeft."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def discard(self) -> None:
        """Read on for a while: closed with unread data, the connection would be reset."""
        left = DISCARD_BYTES
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while left > 0 and not self.complete:
                    left -= len(await self.part())
        except TimeoutError:
            return


def _replayed(body: bytes, receive: Receive) -> Receive:
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal message
        if message is not None:
            first, message = message, None
            return first
        return await receive()

    return replay
