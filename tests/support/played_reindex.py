"""A pod with one reindex job, played: its wire and its leases, over two collections in a dict."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_runtime.core.reindexing.joining import PointId, order
from ullage_runtime.retrieval.reindex.wire import (
    Done,
    Hashes,
    Lease,
    Load,
    PageResult,
    PointHash,
    PointVersion,
    Probes,
    Range,
    RangeProgress,
    Schema,
    VerificationRequest,
    Versions,
)

Collection = dict[PointId, int]


@dataclass
class PlayedPod:
    """The pod; what happens to it in between is up to the test."""

    source: Collection
    target: Collection = field(default_factory=dict)
    phase: Phase = Phase.COPYING
    plan: ReindexPlan = ReindexPlan.COPY
    failing: frozenset[PointId] = frozenset()
    max_failed: int = 0
    points_per_second: int | None = None
    load: Load = field(default_factory=Load)
    probes: Probes = field(
        default_factory=lambda: Probes(samples=10, recall_percent=100, self_retrieval_percent=100)
    )
    differences: tuple[str, ...] = ()
    holder: str | None = None
    token: int = 0
    checkpoint: tuple[RangeProgress, ...] = ()
    judgement: VerificationRequest | None = None
    failure: str | None = None
    pages: int = 0
    page_seconds: float = 0.0
    """How long a page takes."""
    contents: dict[str, dict[PointId, str]] = field(default_factory=dict)
    before: Callable[[str], httpx.Response | None] = lambda _: None
    """Called with the path of every request; what it returns is the answer."""

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answered_in_time)

    async def _answered_in_time(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pages"):
            await asyncio.sleep(self.page_seconds)
        return self._answered(request)

    def _answered(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/internal/v1/reindexes/job")
        special = self.before(path)
        if special is not None:
            return special
        body = json.loads(request.content) if request.content else {}
        if path != "/lease" and "token" in body and body["token"] != self.token:
            return refused(409, "stale_lease")
        answer = self._did(request.method, path, body, request.url.params)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, json=answer.model_dump(mode="json", by_alias=True))

    def _did(self, method: str, path: str, body: Any, query: Mapping[str, str]) -> Any:
        answers: dict[tuple[str, str], Callable[[], Any]] = {
            ("POST", "/lease"): lambda: self._lease(
                body["worker"], body.get("token"), ends=body["ends"]
            ),
            ("POST", "/pages"): lambda: self._page(
                Range.model_validate(body["range"]), body["next"], body["limit"]
            ),
            ("PUT", "/checkpoint"): lambda: self._keep(body["ranges"]),
            ("GET", "/versions"): lambda: self._versions(query),
            ("POST", "/versions"): lambda: self._asked(body["physical"], body["ids"]),
            ("POST", "/hashes"): lambda: self._hashes(body["physical"], body["ids"]),
            ("POST", "/probes"): lambda: self.probes,
            ("GET", "/schema"): lambda: Schema(wanted={}, target={}, differences=self.differences),
            ("POST", "/verification"): lambda: self._judge(body),
            ("POST", "/failure"): lambda: self._fail(body["message"]),
        }
        return answers[method, path]()

    def _keep(self, ranges: list[Any]) -> Done:
        self.checkpoint = tuple(map(RangeProgress.model_validate, ranges))
        if all(each.is_done for each in self.checkpoint):
            self.phase = Phase.VERIFYING
        return Done()

    def _asked(self, physical: str, ids: list[PointId]) -> Versions:
        found = self._of(physical)
        return self._points({each: found[each] for each in ids if each in found})

    def _judge(self, body: Any) -> Done:
        self.judgement = VerificationRequest.model_validate(body)
        self.phase = Phase.SOAKING if self.judgement.passed else Phase.CANCELLING
        return Done()

    def _fail(self, message: str) -> Done:
        self.failure, self.phase = message, Phase.CANCELLING
        return Done()

    def _lease(self, worker: str, token: int | None, *, ends: bool) -> Any:
        if token is None:
            if self.holder not in {None, worker}:
                return refused(409, "lease_held")
            self.holder, self.token = worker, self.token + 1
        elif token != self.token:
            return refused(409, "stale_lease")
        if ends:
            self.holder = None
        return Lease(
            token=self.token,
            uid="uid",
            collection="notes",
            phase=self.phase,
            plan=self.plan,
            source="notes-1",
            target="notes-2",
            total=len(self.source),
            points_per_second=self.points_per_second,
            max_failed=self.max_failed,
            keeps_vectors=self.plan is ReindexPlan.COPY,
            configuration="one",
            checkpoint=self.checkpoint,
            load=self.load,
            failed=len(self.failing & self.source.keys()),
        )

    def take_over(self) -> None:
        """Give the lease to somebody else."""
        self.holder, self.token = "somebody else", self.token + 1

    def _page(self, given: Range, after: PointId | None, limit: int) -> PageResult:
        self.pages += 1
        first = given.first if after is None else after
        ids = [
            each
            for each in sorted(self.source, key=order)
            if (first is None or order(each) >= order(first))
            and (given.last is None or order(each) <= order(given.last))
        ]
        page, rest = ids[:limit], ids[limit:]
        taken = [each for each in page if each not in self.failing]
        for each in taken:
            self.target[each] = max(self.source[each], self.target.get(each, 0))
        failed = [{"id": each, "reason": "too long"} for each in page if each in self.failing]
        return PageResult.model_validate(
            {
                "next": rest[0] if rest else None,
                "copied": len(taken),
                "skipped": 0,
                "failed": failed,
                "load": self.load,
            }
        )

    def _of(self, physical: str) -> Collection:
        return self.source if physical == "notes-1" else self.target

    def _versions(self, query: Mapping[str, str]) -> Versions:
        found, limit = self._of(query["physical"]), int(query["limit"])
        after = query.get("after")
        start = None if after is None else int(after) if after.isdigit() else after
        ids = [
            each
            for each in sorted(found, key=order)
            if start is None or order(each) >= order(start)
        ]
        page = self._points({each: found[each] for each in ids[:limit]})
        return page.model_copy(update={"next": ids[limit] if len(ids) > limit else None})

    def _points(self, found: Collection) -> Versions:
        points = tuple(PointVersion(id=each, version=version) for each, version in found.items())
        return Versions(points=points, settled=0)

    def _hashes(self, physical: str, ids: list[PointId]) -> Hashes:
        found, contents = self._of(physical), self.contents.get(physical, {})
        return Hashes(
            points=tuple(
                PointHash(
                    id=each,
                    version=found[each],
                    payload=contents.get(each, "same"),
                    vectors="same",
                    has_dense=True,
                    has_text=True,
                )
                for each in ids
                if each in found
            )
        )


def refused(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": f"it is {code}"}})
