"""Runtime pods over HTTP: one long poll each for its report, and pushes of the desired document."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import httpx
import structlog
from pydantic import ValidationError

from ullage_api.kinds.base import KubeModel
from ullage_api.names import canonical_json
from ullage_api.wire.pod_report import (
    PodReport,
    ReportedCollection,
    ReportedModel,
    ReportedReindex,
)
from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.adapters.metrics import PodMetrics
from ullage_operator.controller.keys import Key
from ullage_operator.controller.ports import PodEndpoint
from ullage_operator.reconcile.observed import (
    FIRST_REPORT_SECONDS,
    REPORT_LIMIT_SECONDS,
    ReportView,
)

log = structlog.get_logger(__name__)

REPORT_PATH: Final = "/internal/v1/report"
DESIRED_PATH: Final = "/internal/v1/desired"

POLL_SECONDS: Final = 30
CONNECT_SECONDS: Final = 3.0
SLACK_SECONDS: Final = 10.0
"""What a poll may take beyond the time it asked for."""
PUSH_SECONDS: Final = 5.0
PUSH_TRIES: Final = 2
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 2.0
LARGEST_REPORT: Final = 8 << 20
"""Bytes of a report above which it is refused: a pod must not fill our memory."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What has changed with a pod's new report."""

    pool: Key
    models: frozenset[str]
    """Models of which it says something new."""
    concerns_pool: bool
    """Whether the desired document may have to be sent, or its sequence raised."""
    collections: frozenset[str] = frozenset()
    """Collections of which it says something new."""
    reindexes: frozenset[str] = frozenset()
    """Reindex jobs of which it says something new."""

    @property
    def is_news(self) -> bool:
        """Whether it says anything new at all."""
        return bool(self.models or self.collections or self.reindexes or self.concerns_pool)


OnChange = Callable[[Heard], None]
Entry = TypeVar("Entry", ReportedModel, ReportedCollection, ReportedReindex)


@dataclass(slots=True)
class _Follower:
    """The long poll of one pod."""

    endpoint: PodEndpoint
    since: float
    task: "asyncio.Task[None] | None" = None
    report: PodReport | None = None
    heard_at: float | None = None
    silence_told: bool = False
    """Whether its models were made due because it has been silent for too long."""


@dataclass(slots=True)
class _Pool:
    token: str
    followers: dict[str, _Follower] = field(default_factory=dict)


class HttpPodReports:
    """PodReports over HTTP."""

    def __init__(self, client: httpx.AsyncClient, metrics: PodMetrics, on_change: OnChange) -> None:
        self._client = client
        self._metrics = metrics
        self._on_change = on_change
        self._pools: dict[Key, _Pool] = {}
        self._loop = asyncio.get_running_loop()

    def follow(self, pool: Key, endpoints: Sequence[PodEndpoint], token: str) -> None:
        """Ask exactly these pods of a pool from now on."""
        known = self._pools.setdefault(pool, _Pool(token))
        known.token = token
        wanted = {endpoint.pod: endpoint for endpoint in endpoints}
        for name, follower in list(known.followers.items()):
            if wanted.get(name) != follower.endpoint:
                self._end(known.followers.pop(name))
        for name, endpoint in wanted.items():
            if name not in known.followers:
                follower = _Follower(endpoint, self._loop.time())
                known.followers[name] = follower
                follower.task = self._loop.create_task(
                    self._poll(pool, known, follower), name=f"report-{pool.namespace}/{name}"
                )

    def forget(self, pool: Key) -> None:
        """Ask no pod of a pool any more."""
        known = self._pools.pop(pool, None)
        for follower in known.followers.values() if known is not None else ():
            self._end(follower)

    def latest(self, pool: Key) -> tuple[ReportView, ...]:
        """Return the last that was heard of each pod that is asked."""
        known = self._pools.get(pool)
        now = self._loop.time()
        return tuple(
            ReportView(
                pod=name,
                report=f.report,
                age_seconds=None if f.heard_at is None else now - f.heard_at,
                awaited_seconds=now - f.since,
            )
            for name, f in sorted(known.followers.items() if known is not None else ())
        )

    async def push(self, pool: Key, pods: Sequence[str], document: PoolDesired) -> None:
        """Send the document to pods, all at once; each has its own deadline."""
        known = self._pools.get(pool)
        if known is None:
            return
        body = canonical_json(document.to_wire())
        targets = [f for name, f in known.followers.items() if name in pods]
        await asyncio.gather(*(self._push(pool, known.token, t, body) for t in targets))

    async def close(self) -> None:
        """End every poll and wait until all have ended."""
        tasks = [
            f.task for p in self._pools.values() for f in p.followers.values() if f.task is not None
        ]
        for pool in list(self._pools):
            self.forget(pool)
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _end(follower: _Follower) -> None:
        if follower.task is not None:
            follower.task.cancel()

    async def _poll(self, pool: Key, known: _Pool, follower: _Follower) -> None:
        """Ask for the next report, for ever; after an error, pause and ask for any report."""
        after, pause, complained = -1, FIRST_PAUSE, False
        names = {"namespace": pool.namespace, "pool": pool.name, "pod": follower.endpoint.pod}
        while True:
            try:
                report = await self._report(follower.endpoint, known.token, after)
            except (httpx.HTTPError, ValidationError, ReportError) as error:
                # A pod that is only starting has an address before it listens.
                if not complained and self._has_had_time(follower):
                    log.warning("pod does not report", **names, error=_words(error))
                    complained = True
                # The process behind the address may be another one now, with other sequences.
                after = -1
                self._tell_of_silence(pool, follower)
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if complained:
                log.info("pod reports again", **names)
            pause, complained = FIRST_PAUSE, False
            before = None if follower.silence_told else follower.report
            follower.report, follower.silence_told = report, False
            follower.heard_at = self._loop.time()
            after = report.sequence
            heard = difference(pool, before, report)
            if heard.is_news:
                self._on_change(heard)

    def _has_had_time(self, follower: _Follower) -> bool:
        since = follower.since if follower.heard_at is None else follower.heard_at
        return self._loop.time() - since > FIRST_REPORT_SECONDS

    def _tell_of_silence(self, pool: Key, follower: _Follower) -> None:
        """Have the models of a pod looked at once its last report is too old to be believed."""
        if follower.report is None or follower.heard_at is None or follower.silence_told:
            return
        if self._loop.time() - follower.heard_at > REPORT_LIMIT_SECONDS:
            follower.silence_told = True
            silent = difference(pool, None, follower.report)
            self._on_change(replace(silent, concerns_pool=False))

    async def _report(self, endpoint: PodEndpoint, token: str, after: int) -> PodReport:
        query = {"after": str(after), "timeoutSeconds": str(POLL_SECONDS)}
        timeout = httpx.Timeout(CONNECT_SECONDS, read=POLL_SECONDS + SLACK_SECONDS)
        code = "error"
        try:
            async with self._client.stream(
                "GET",
                _url(endpoint, REPORT_PATH),
                params=query,
                headers=_bearer(token),
                timeout=timeout,
            ) as response:
                code = str(response.status_code)
                response.raise_for_status()
                text = bytearray()
                async for part in response.aiter_bytes():
                    text += part
                    if len(text) > LARGEST_REPORT:
                        raise ReportError(f"the report is larger than {LARGEST_REPORT} bytes")
        finally:
            self._metrics.pod_called("report", code)
        return PodReport.model_validate_json(bytes(text))

    async def _push(self, pool: Key, token: str, follower: _Follower, body: str) -> None:
        endpoint = follower.endpoint
        headers = {**_bearer(token), "Content-Type": "application/json"}
        url = _url(endpoint, DESIRED_PATH)
        error: httpx.HTTPError | None = None
        for attempt in range(PUSH_TRIES):
            if attempt:
                await asyncio.sleep(FIRST_PAUSE)
            code = "error"
            try:
                response = await self._client.put(
                    url, content=body, headers=headers, timeout=PUSH_SECONDS
                )
                code = str(response.status_code)
                response.raise_for_status()
            except httpx.HTTPError as failure:
                error = failure
            else:
                _acknowledge(follower, response)
                return
            finally:
                self._metrics.pod_called("desired", code)
        log.warning(
            "push failed",
            namespace=pool.namespace,
            pool=pool.name,
            pod=endpoint.pod,
            error=_words(error),
        )


class Acknowledgement(KubeModel):
    """A pod's answer to a push: the document in effect, which may be a newer one."""

    acknowledged: int
    acknowledged_hash: str


class ReportError(Exception):
    """A report that cannot be taken."""


def difference(pool: Key, before: PodReport | None, after: PodReport) -> Heard:
    """Return what is new in a report."""
    models = _different(before.models if before is not None else (), after.models)
    if before is None or before.level != after.level:
        # How full the pod is concerns everything on it.
        models |= {m.name for m in after.models}
    concerns_pool = before is None or (
        (before.boot_id, before.acknowledged, before.acknowledged_hash)
        != (after.boot_id, after.acknowledged, after.acknowledged_hash)
    )
    collections = _different(before.collections if before is not None else (), after.collections)
    reindexes = _different(before.reindexes if before is not None else (), after.reindexes)
    return Heard(pool, models, concerns_pool, collections, reindexes)


def _different(before: Sequence[Entry], after: Sequence[Entry]) -> frozenset[str]:
    """Return the names of the entries that are new, other than before, or gone."""
    old, new = {e.name: e for e in before}, {e.name: e for e in after}
    return frozenset(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))


def _acknowledge(follower: _Follower, response: httpx.Response) -> None:
    """Note in the pod's last report what it has just acknowledged; its next one may take long."""
    try:
        answer = Acknowledgement.model_validate_json(response.content)
    except ValidationError:
        return
    if follower.report is not None:
        follower.report = follower.report.model_copy(
            update={
                "acknowledged": answer.acknowledged,
                "acknowledged_hash": answer.acknowledged_hash,
            }
        )


def _url(endpoint: PodEndpoint, path: str) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"http://{host}:{endpoint.port}{path}"


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _words(error: BaseException | None) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
