"""The reader of pods against real servers that say what the test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web

from ullage_api.kinds.memory import MemoryLevel
from ullage_api.wire.pod_report import PodReport, ReportedModel
from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.adapters.runtime import Heard, HttpPodReports, difference
from ullage_operator.controller.keys import Key
from ullage_operator.controller.ports import PodEndpoint

POOL = Key.pool("team-a", "default")
TOKEN = "secret-token"


class Calls:
    def __init__(self) -> None:
        self.counted: list[tuple[str, str]] = []

    def pod_called(self, verb: str, code: str) -> None:
        self.counted.append((verb, code))


def report(sequence: int = 1, **fields: Any) -> PodReport:
    return PodReport(
        pod="ullage-default-0",
        ordinal=0,
        boot_id=fields.pop("boot", "b"),
        sequence=sequence,
        **fields,
    )


@dataclass
class Pod:
    """A pod's `/internal`, as scripted."""

    current: PodReport = field(default_factory=report)
    answer: Callable[[], web.Response] | None = None
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    pushed: list[PoolDesired] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def becomes(self, current: PodReport) -> None:
        self.current = current
        self.changed.set()

    async def report(self, request: web.Request) -> web.Response:
        self.asked.append(request.query["after"])
        self.tokens.add(request.headers["Authorization"])
        if self.answer is not None:
            return self.answer()
        while self.current.sequence <= int(request.query["after"]):
            self.changed.clear()
            await self.changed.wait()
        return web.json_response(self.current.to_wire())

    async def desired(self, request: web.Request) -> web.Response:
        document = PoolDesired.model_validate(await request.json())
        self.pushed.append(document)
        answer = {"acknowledged": document.sequence, "acknowledgedHash": document.hash}
        return web.json_response(answer)


@asynccontextmanager
async def served(pod: Pod) -> AsyncIterator[PodEndpoint]:
    application = web.Application()
    application.router.add_get("/internal/v1/report", pod.report)
    application.router.add_put("/internal/v1/desired", pod.desired)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield PodEndpoint("ullage-default-0", "uid", "127.0.0.1", runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def reader(heard: list[Heard]) -> AsyncIterator[HttpPodReports]:
    async with httpx.AsyncClient(trust_env=False) as client:
        reports = HttpPodReports(client, Calls(), heard.append)
        try:
            yield reports
        finally:
            await reports.close()


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def test_a_report_is_heard_at_once_and_the_next_when_something_changes() -> None:
    pod, heard = Pod(report(5)), []  # type: ignore[var-annotated]
    async with served(pod) as endpoint, reader(heard) as reports:
        reports.follow(POOL, [endpoint], TOKEN)
        await until(lambda: heard)
        assert heard[0] == Heard(POOL, frozenset(), concerns_pool=True)
        await until(lambda: pod.asked == ["-1", "5"])
        pod.becomes(report(6, models=(ReportedModel(name="chat"),)))
        await until(lambda: len(heard) == 2)
        assert heard[1] == Heard(POOL, frozenset({"chat"}), concerns_pool=False)
        (view,) = reports.latest(POOL)
        assert view.fresh is not None
        assert view.fresh.sequence == 6
    assert pod.tokens == {f"Bearer {TOKEN}"}


async def test_after_an_error_any_report_is_asked_for_and_the_last_one_stays() -> None:
    pod, heard = Pod(report(5)), []  # type: ignore[var-annotated]
    async with served(pod) as endpoint, reader(heard) as reports:
        reports.follow(POOL, [endpoint], TOKEN)
        await until(lambda: heard)
        pod.answer = lambda: web.Response(status=503)
        pod.becomes(report(6))
        await until(lambda: pod.asked.count("-1") >= 2)
        (view,) = reports.latest(POOL)
        assert view.report is not None
        pod.answer = None
        pod.becomes(report(1, boot="another"))
        await until(lambda: len(heard) == 2)
        assert heard[1].concerns_pool


async def test_a_pod_that_talks_nonsense_or_too_much_is_asked_again_later() -> None:
    pod, heard = Pod(report()), []  # type: ignore[var-annotated]
    pod.answer = lambda: web.Response(body=b"x" * (9 << 20))
    async with served(pod) as endpoint, reader(heard) as reports:
        reports.follow(POOL, [endpoint], TOKEN)
        await until(lambda: len(pod.asked) >= 2)
        pod.answer = lambda: web.Response(text="{}")
        asked = len(pod.asked)
        await until(lambda: len(pod.asked) > asked)
        assert reports.latest(POOL)[0].report is None
        pod.answer = None
        await until(lambda: heard)


async def test_a_push_is_remembered_as_acknowledged() -> None:
    pod, heard = Pod(report()), []  # type: ignore[var-annotated]
    document = PoolDesired(namespace="team-a", pool="default").sealed(7)
    async with served(pod) as endpoint, reader(heard) as reports:
        reports.follow(POOL, [endpoint], TOKEN)
        await until(lambda: heard)
        await reports.push(POOL, ["ullage-default-0"], document)
        assert pod.pushed == [document]
        (view,) = reports.latest(POOL)
        assert view.report is not None
        assert (view.report.acknowledged, view.report.acknowledged_hash) == (7, document.hash)


async def test_a_push_to_nobody_ends_with_its_deadline() -> None:
    heard: list[Heard] = []
    gone = PodEndpoint("ullage-default-0", "uid", "127.0.0.1", 9)
    async with reader(heard) as reports:
        reports.follow(POOL, [gone], TOKEN)
        await reports.push(
            POOL, ["ullage-default-0"], PoolDesired(namespace="team-a", pool="default").sealed(1)
        )
        assert reports.latest(POOL)[0].report is None


async def test_a_pod_that_was_replaced_is_asked_anew_and_one_that_left_not_at_all() -> None:
    pod, heard = Pod(report()), []  # type: ignore[var-annotated]
    async with served(pod) as endpoint, reader(heard) as reports:
        reports.follow(POOL, [endpoint], TOKEN)
        await until(lambda: heard)
        reports.follow(POOL, [endpoint], TOKEN)
        assert reports.latest(POOL)[0].report is not None
        again = PodEndpoint(endpoint.pod, "another uid", endpoint.address, endpoint.port)
        reports.follow(POOL, [again], TOKEN)
        assert reports.latest(POOL)[0].report is None
        reports.follow(POOL, [], TOKEN)
        assert reports.latest(POOL) == ()
        reports.forget(POOL)


def test_only_what_is_new_is_heard() -> None:
    before = report(models=(ReportedModel(name="a"), ReportedModel(name="b")))
    after = report(2, models=(ReportedModel(name="a"), ReportedModel(name="b", restarts=1)))
    assert difference(POOL, before, after) == Heard(POOL, frozenset({"b"}), concerns_pool=False)
    assert difference(POOL, before, report(2)).models == {"a", "b"}
    assert difference(POOL, before, report(2, acknowledged=3)).concerns_pool


def test_another_level_concerns_every_model_of_the_pod() -> None:
    models = (ReportedModel(name="a"), ReportedModel(name="b"))
    before = report(1, models=models, level=MemoryLevel.LOW)
    after = report(2, models=models, level=MemoryLevel.HIGH)
    assert difference(POOL, before, after) == Heard(POOL, frozenset("ab"), concerns_pool=False)
    assert not difference(POOL, after, after).models
