"""The pod that owns a collection, as a worker talks to it.

WorkerError
├── Fenced       another worker has the lease: what this one does counts no more
├── NotNow       the job is in another phase: look again
├── Busy         another worker has the lease, and may be gone soon
├── Forbidden    the pod does not accept the token, or the request
└── PodAway      the pod has not answered for as long as we wait
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import structlog
from pydantic import BaseModel

from ullage_runtime.core.backoff import exponential
from ullage_runtime.retrieval.reindex.wire import (
    CheckpointRequest,
    Done,
    FailureRequest,
    Hashes,
    HashesRequest,
    Lease,
    LeaseRequest,
    PageRequest,
    PageResult,
    Probes,
    ProbesRequest,
    Schema,
    VerificationRequest,
    Versions,
    VersionsRequest,
)
from ullage_runtime.retrieval.stores.port import PointId

log = structlog.stdlib.get_logger(__name__)

Answer = TypeVar("Answer", bound=BaseModel)

PATIENCE_SECONDS: Final = 600.0
"""How long a pod may be away, as while it restarts and loads its models."""
UNKNOWN_SECONDS: Final = 60.0
"""How long a pod may not know the job: after a restart it has yet to read what is wanted."""
ANSWER_SECONDS: Final = 120.0
"""A page of texts is embedded behind everybody who searches."""
CONNECT_SECONDS: Final = 5.0
FIRST_PAUSE: Final = 0.2
PAUSE_LIMIT: Final = 10.0


class WorkerError(Exception):
    """Something keeps a worker from going on."""


class Fenced(WorkerError):  # noqa: N818 - named after what is so
    """Another worker has the lease: what this one does counts no more."""


class NotNow(WorkerError):  # noqa: N818 - likewise
    """The job is in another phase than the request is for."""


class Busy(WorkerError):  # noqa: N818 - likewise
    """Another worker has the lease, and may be gone soon."""


class Forbidden(WorkerError):  # noqa: N818 - likewise
    """The pod does not accept the token, or the request itself."""


class PodAway(WorkerError):  # noqa: N818 - likewise
    """The pod has not answered for as long as we wait."""


_CONFLICTS: Final[dict[str, type[WorkerError]]] = {
    "stale_lease": Fenced,
    "lease_held": Busy,
    "reindex_not_running": NotNow,
    "reindex_conflict": NotNow,
}


class Pod:
    """One job's paths of a pod's `/internal`. Whoever makes it closes it.

    Every request may be sent twice: the pod writes over what is older only, and a checkpoint or a
    judgement replaces the one before. So what fails is sent again until `patience` is up.
    """

    def __init__(
        self,
        url: str,
        job: str,
        token: str | None,
        *,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = f"/internal/v1/reindexes/{quote(job, safe='')}"
        self._patience = patience
        self._clock = clock
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def lease(self, request: LeaseRequest) -> Lease:
        """Take or renew the lease; raises Busy or Fenced."""
        return await self._ask("POST", "/lease", Lease, request)

    async def page(self, request: PageRequest) -> PageResult:
        """Have a page copied."""
        return await self._ask("POST", "/pages", PageResult, request)

    async def keep(self, request: CheckpointRequest) -> None:
        """Keep how far the copy has come."""
        await self._ask("PUT", "/checkpoint", Done, request)

    async def versions(self, physical: str, after: PointId | None, limit: int) -> Versions:
        """Return a page of live points with their versions."""
        query = {"physical": physical, "limit": limit}
        if after is not None:
            query["after"] = after
        return await self._ask("GET", "/versions", Versions, query=query)

    async def versions_of(self, physical: str, ids: Sequence[PointId]) -> Versions:
        """Return versions of certain points, once all that is accepted is applied."""
        return await self._ask(
            "POST", "/versions", Versions, VersionsRequest(physical=physical, ids=list(ids))
        )

    async def hashes(self, physical: str, ids: Sequence[PointId]) -> Hashes:
        """Return what distinguishes points' contents."""
        return await self._ask(
            "POST", "/hashes", Hashes, HashesRequest(physical=physical, ids=list(ids))
        )

    async def schema(self) -> Schema:
        """Return how both sides are laid out."""
        return await self._ask("GET", "/schema", Schema)

    async def probes(self, request: ProbesRequest) -> Probes:
        """Have the target searched for some of its own points."""
        return await self._ask("POST", "/probes", Probes, request)

    async def judge(self, request: VerificationRequest) -> None:
        """Say what the verification came to."""
        await self._ask("POST", "/verification", Done, request)

    async def fail(self, request: FailureRequest) -> None:
        """Say that the job cannot be done."""
        await self._ask("POST", "/failure", Done, request)

    async def _ask(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        body: BaseModel | None = None,
        query: dict[str, Any] | None = None,
    ) -> Answer:
        """Send a request until it is answered; raises WorkerError."""
        content = None if body is None else body.model_dump(mode="json", by_alias=True)
        began, attempt = self._clock(), 0
        while True:
            response, problem = await self._sent(method, path, content, query)
            if response is not None and response.is_success:
                return answer.model_validate_json(response.content)
            patience = self._patience
            if response is not None:
                patience = min(patience, _patience(response))
            waited = self._clock() - began
            if waited >= patience:
                raise PodAway(f"{problem}, for {waited:.0f} s")
            attempt += 1
            pause = exponential(attempt, FIRST_PAUSE, PAUSE_LIMIT)
            log.warning("the pod does not answer", path=path, problem=problem, again_in=pause)
            await asyncio.sleep(pause)

    async def _sent(
        self, method: str, path: str, content: Any, query: dict[str, Any] | None
    ) -> tuple[httpx.Response | None, str]:
        try:
            response = await self._http.request(
                method, self._path + path, json=content, params=query
            )
        except httpx.HTTPError as error:
            return None, f"{error!r}"
        return response, f"HTTP {response.status_code}: {_words(response)[1]}"


def _patience(response: httpx.Response) -> float:
    """Return how long a refusal is worth waiting for; raises what will not change."""
    code, message = _words(response)
    match response.status_code:
        case httpx.codes.CONFLICT if code in _CONFLICTS:
            raise _CONFLICTS[code](message)
        case httpx.codes.NOT_FOUND:
            return UNKNOWN_SECONDS
        case httpx.codes.TOO_MANY_REQUESTS:
            return PATIENCE_SECONDS
        case status if status < httpx.codes.INTERNAL_SERVER_ERROR:
            raise Forbidden(f"HTTP {status}: {message}")
    return PATIENCE_SECONDS


def _words(response: httpx.Response) -> tuple[str, str]:
    """Return an error's code and message."""
    try:
        error = response.json()["error"]
        return str(error.get("code")), str(error.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", response.text[:200]
