"""The traffic driver sees what clients of a real server see, and says when."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import pytest

from e2e.traffic import Traffic
from tests.support.runtimes import eventually, served
from tests.support.scripted_models import (
    FakeModels,
    Gate,
    Script,
    desired_model,
    fails_after,
    says,
)
from ullage_runtime.core.domain import Chunk, GenerateRequest
from ullage_runtime.core.errors import EngineFailed, Overloaded

QUICK = 50.0
"""Requests a second that make a test short."""


def hello(request: GenerateRequest) -> AsyncIterator[Chunk]:
    return says("I", " am", " one")


def pool(script: Script = hello) -> FakeModels:
    return FakeModels([desired_model("chat")], {"chat": script})


@contextlib.asynccontextmanager
async def traffic_to(
    folder: pathlib.Path, models: FakeModels, *, per_second: float = QUICK, streams: int = 0
) -> AsyncIterator[Traffic]:
    async with (
        served(folder, models) as (runtime, _),
        Traffic(f"{runtime.url}/v1", "chat", per_second=per_second, streams=streams) as traffic,
    ):
        yield traffic


async def test_a_server_without_fault_shows_none(tmp_path: pathlib.Path) -> None:
    async with traffic_to(tmp_path, pool()) as traffic:
        await asyncio.to_thread(traffic.wait_for, 10)
    window = traffic.window()
    assert window.failures == []
    assert window.mixed(["one", "two"]) == []
    assert set(window.answers) == {"I am one"}
    assert window.answers["I am one"] == len(window.started) >= 10
    assert 0 < window.first_token_seconds(0.5) <= window.first_token_seconds(0.99)
    assert window.summary()["failed"] == 0


async def test_new_requests_start_in_time_although_nobody_is_answered(
    tmp_path: pathlib.Path,
) -> None:
    gate, models = Gate(first=""), pool()
    models.scripts["chat"] = gate
    async with traffic_to(tmp_path, models) as traffic:
        await eventually(lambda: models.leases >= 10, 60)
        traffic.mark("answered")
        gate.opened.set()
        await asyncio.to_thread(traffic.wait_for, 10)
    stalled, after = traffic.window("start", "answered"), traffic.window("answered")
    assert stalled.most_at_once >= 10
    assert stalled.failures == after.failures == []
    waits = [o.times[0] - o.started for o in stalled.started]
    assert stalled.longest_stall == pytest.approx(max(waits))
    assert stalled.first_token_seconds(0.99) > 9 / 50


async def test_a_stall_within_a_stream_belongs_to_the_window_it_reaches_into(
    tmp_path: pathlib.Path,
) -> None:
    gate = Gate()
    async with traffic_to(tmp_path, pool(gate), per_second=0, streams=1) as traffic:
        await gate.began.wait()
        await eventually(lambda: bool(traffic.window().outcomes[0].times), 60)
        traffic.mark("stalled")
        await eventually(lambda: traffic.window("stalled").longest_stall >= 0.3, 60)
        traffic.mark("over")
        gate.opened.set()
        await asyncio.to_thread(traffic.wait_for, 5)
    assert traffic.window("stalled", "over").longest_stall >= 0.3
    first, *_ = traffic.window().outcomes
    assert traffic.window("stalled", "over").outcomes == [first]
    assert traffic.window("stalled", "over").started == []


async def test_failures_before_and_after_the_headers_are_told_with_what_was_said(
    tmp_path: pathlib.Path,
) -> None:
    models = pool(fails_after("I", error=EngineFailed("the engine died")))
    async with traffic_to(tmp_path, models) as traffic:
        await asyncio.to_thread(traffic.wait_for, 3)
        traffic.mark("refused")
        models.refusals["chat"] = Overloaded("the queue is full")
        await asyncio.to_thread(traffic.wait_for, 3)
    assert any("the engine died" in failure for failure in traffic.window().failures)
    assert any("429" in failure for failure in traffic.window("refused").failures)
    assert all(outcome.failed for outcome in traffic.window().outcomes)


async def test_a_stream_with_the_text_of_two_generations_is_found(tmp_path: pathlib.Path) -> None:
    async with traffic_to(tmp_path, pool(lambda _: says("I am one,", " I am two"))) as traffic:
        await asyncio.to_thread(traffic.wait_for, 3)
    window = traffic.window()
    assert window.mixed(["am one", "am two"]) == [o.text for o in window.outcomes]
    assert window.mixed(["am one", "am three"]) == []


async def test_busy_clients_are_all_open_at_once_and_only_the_open_loop_is_timed(
    tmp_path: pathlib.Path,
) -> None:
    gate, models = Gate(first=""), pool()
    models.scripts["chat"] = gate
    async with traffic_to(tmp_path, models, per_second=5, streams=50) as traffic:
        await eventually(lambda: models.leases >= 50, 60)
        gate.opened.set()
        await asyncio.to_thread(traffic.wait_for, 100)
    window = traffic.window()
    assert window.most_at_once >= 50
    assert window.failures == []
    timed = [o for o in window.outcomes if o.is_timed]
    assert 0 < len(timed) < len(window.outcomes) - 50


async def test_a_window_without_fault_has_what_is_required_of_it(tmp_path: pathlib.Path) -> None:
    async with traffic_to(tmp_path, pool()) as traffic:
        await asyncio.to_thread(traffic.wait_for, 100)
    traffic.window().require(texts=["one", "two"], stall=60, p99=60)


async def test_a_window_tells_everything_that_is_not_as_required(tmp_path: pathlib.Path) -> None:
    models = pool(lambda _: says("I am one,", " I am two"))
    async with traffic_to(tmp_path, models) as traffic:
        await asyncio.to_thread(traffic.wait_for, 100)
        models.scripts["chat"] = fails_after("I", error=EngineFailed("the engine died"))
        await asyncio.to_thread(traffic.wait_for, 3)
    with pytest.raises(AssertionError) as wrong:
        traffic.window().require(texts=["am one", "am two"], stall=0, p99=0)
    said = str(wrong.value)
    assert "failed: " in said
    assert "the engine died" in said
    assert "mixed: 'I am one, I am two'" in said
    assert "the longest stall: " in said
    assert "p99: " in said


async def test_a_p99_of_few_requests_is_none(tmp_path: pathlib.Path) -> None:
    async with traffic_to(tmp_path, pool()) as traffic:
        await asyncio.to_thread(traffic.wait_for, 3)
        traffic.mark("few")
    with pytest.raises(AssertionError, match="a p99 takes 100 requests"):
        traffic.window("start", "few").require(p99=60)


async def test_traffic_that_breaks_itself_says_so(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, pool()) as (runtime, _):
        broken = Traffic(f"{runtime.url}/v1", "chat", prompts=())
        with pytest.raises(RuntimeError, match="broke off"):
            async with broken:
                await asyncio.to_thread(broken.wait_for, 1)
