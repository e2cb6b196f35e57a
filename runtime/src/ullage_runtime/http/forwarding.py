"""Forwarding: a request for a model that another pod of the pool holds goes there and back.

The body goes out as it came; the answer streams back as it comes. The next holder is tried as long
as nothing has been sent to the client. A header marks forwarded requests, so that two pods that
disagree about a placement answer 503 instead of passing a request around.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import httpx
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ullage_api.wire.pool_desired import DesiredModel, Peer, PoolDesired
from ullage_runtime.core.errors import (
    ModelUnavailable,
    PeerUnavailable,
    ServingError,
    ShuttingDown,
)
from ullage_runtime.http.disconnect import while_connected
from ullage_runtime.http.draining import Drain
from ullage_runtime.http.metrics import Metrics
from ullage_runtime.http.rate_limits import HEADERS as RATE_LIMIT_HEADERS
from ullage_runtime.http.sse import error_event

log = structlog.stdlib.get_logger(__name__)

HOP_HEADER: Final = "X-Ullage-Forwarded-By"

CONNECT_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 10.0
"""How much longer than the model's own limit a holder may be silent."""
ASK_SECONDS: Final = 10.0
"""How long a pod may take to say what it keeps."""

_PASSED_ON = ("authorization", "content-type", "accept", "x-request-id", "user-agent")
_PASSED_BACK = (
    "content-type",
    "retry-after",
    "cache-control",
    "cache-status",
    "x-accel-buffering",
    "x-should-retry",
    *RATE_LIMIT_HEADERS,
)
_TRY_NEXT = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class Onward:
    """A request as it goes on to another pod."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    body: bytes
    seconds: float
    """How long the other pod may be silent."""


class Forwarder:
    """Sends requests to the pods that hold their models."""

    def __init__(self, *, pod: str, ordinal: int, metrics: Metrics, drain: Drain) -> None:
        self._drain = drain
        self._pod = pod
        self._ordinal = ordinal
        self._metrics = metrics
        self._turn = itertools.count()
        # Environment proxies are for the world outside; peers are inside.
        self._client = httpx.AsyncClient(
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def peer(self, ordinal: int, desired: PoolDesired | None) -> Peer | None:
        """Return another pod of the pool by its ordinal."""
        peers = desired.peers if desired else ()
        return next((p for p in peers if p.ordinal == ordinal != self._ordinal), None)

    def holders(
        self, model: DesiredModel, desired: PoolDesired | None, first: int | None = None
    ) -> list[Peer]:
        """Return the other pods that should hold a model.

        `first` is the ordinal of the one to begin with if it is among them; otherwise it is
        another one each time.
        """
        peers = [
            peer
            for peer in (desired.peers if desired else ())
            if peer.ordinal in model.ordinals and peer.ordinal != self._ordinal
        ]
        if not peers:
            return []
        turn = next(self._turn) % len(peers)
        return sorted(peers[turn:] + peers[:turn], key=lambda peer: peer.ordinal != first)

    async def answer(
        self,
        request: Request,
        model: DesiredModel,
        desired: PoolDesired | None,
        first: int | None = None,
    ) -> "ForwardedAnswer":
        """Return the response that asks the holders, as `holders` orders them, once it is sent."""
        hop = request.headers.get(HOP_HEADER)
        if hop is not None:
            raise PeerUnavailable(
                f"pod {hop} sent a request for {model.name!r} here, but this pod does not hold it "
                "either; the pool is being rearranged",
                retry_after=1,
            )
        peers = self.holders(model, desired, first)
        if not peers:
            raise ModelUnavailable(f"no pod of the pool holds model {model.name!r}")
        seconds = (model.serving.request_seconds or 300) + (model.serving.hold_seconds or 120)
        return await self.answer_of(request, peers, seconds + GRACE_SECONDS)

    async def answer_of(
        self, request: Request, peers: Sequence[Peer], seconds: float
    ) -> "ForwardedAnswer":
        """Return the response that asks some pods, the next when one does not answer."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        onward = Onward(request.method, path, self._headers(request), await request.body(), seconds)
        return ForwardedAnswer(self, peers, onward, self._drain)

    async def asked(self, request: Request, peer: Peer, path: str) -> httpx.Response:
        """Return what a pod says at a path to the caller of a request; raises PeerUnavailable."""
        async with AsyncExitStack() as stack:
            onward = Onward("GET", path, self._headers(request), b"", ASK_SECONDS)
            answer = await self.open(stack, [peer], onward)
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await answer.aread()
            except (TimeoutError, httpx.TransportError) as error:
                raise PeerUnavailable(
                    f"pod {peer.ordinal} broke off: {error!r}", retry_after=1
                ) from error
            return answer

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {n: v for n in _PASSED_ON if (v := request.headers.get(n)) is not None}
        headers[HOP_HEADER] = self._pod
        # Asked for compressed, an answer's parts would wait for each other.
        headers["accept-encoding"] = "identity"
        return headers

    async def open(
        self, stack: AsyncExitStack, peers: Sequence[Peer], onward: "Onward"
    ) -> httpx.Response:
        """Return the first good answer, or the last bad one; raises PeerUnavailable."""
        timeout = httpx.Timeout(onward.seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS)
        for index, peer in enumerate(peers):
            is_last = index == len(peers) - 1
            request = self._client.build_request(
                onward.method,
                peer.url.rstrip("/") + onward.path,
                headers=onward.headers,
                content=onward.body,
                timeout=timeout,
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx.TransportError as error:
                self._metrics.forwarded("unreachable")
                log.warning("peer cannot be reached", peer=peer.url, error=repr(error))
                continue
            if response.status_code in _TRY_NEXT and not is_last:
                self._metrics.forwarded("refused")
                await response.aclose()
                continue
            stack.push_async_callback(response.aclose)
            self._metrics.forwarded("answered")
            return response
        raise PeerUnavailable(
            f"none of the {len(peers)} pods that could answer can be reached", retry_after=2
        )

    async def close(self) -> None:
        """Close the connections to the peers."""
        await self._client.aclose()


class ForwardedAnswer(Response):
    """Another pod's answer, passed on as it comes."""

    def __init__(
        self,
        forwarder: Forwarder,
        peers: Sequence[Peer],
        onward: Onward,
        drain: Drain,
    ) -> None:
        super().__init__()
        self._forwarder = forwarder
        self._peers = peers
        self._onward = onward
        self._drain = drain
        self._ended = asyncio.Event()
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the holders and pass the answer on; raises ServingError before anything is sent."""
        del scope
        self._drain.add(self)
        try:
            await while_connected(receive, self._pass_on(send), over=self._ended)
        except ShuttingDown as error:
            if not self._started:
                raise
            end = {"type": "http.response.body", "body": error_event(error), "more_body": False}
            await send(end)
        finally:
            self._drain.discard(self)

    def abort(self, error: ServingError) -> None:
        """End it now."""
        del error
        self._ended.set()

    async def _pass_on(self, send: Send) -> None:
        async with AsyncExitStack() as stack:
            answer = await self._forwarder.open(stack, self._peers, self._onward)
            headers = [
                (name.encode(), value.encode())
                for name in _PASSED_BACK
                if (value := answer.headers.get(name)) is not None
            ]
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status_code,
                    "headers": headers,
                }
            )
            async for part in _parts(answer):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _parts(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the answer's bytes; a stream that breaks ends with an error event of ours."""
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.TransportError as error:
        log.warning("peer broke off", error=repr(error))
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise
        yield error_event(PeerUnavailable("the pod that held the model broke off", retry_after=1))
