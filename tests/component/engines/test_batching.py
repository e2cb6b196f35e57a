"""What the scheduler promises, kept by a real worker with a real llama.cpp."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gguf_models import Shape, write_model
from tests.support.scoring import check_alone, ids_of, written
from tests.support.workers import (
    chunks_of,
    completion,
    ends_of,
    eventually,
    loaded,
    text_of,
)
from ullage_runtime.core.domain import (
    CacheType,
    EngineSpec,
    FinishReason,
    GenerateRequest,
    Usage,
)
from ullage_runtime.core.errors import EngineFailed, LoadError, RequestTimeout
from ullage_runtime.core.scheduling.sequence import AGE_SECONDS
from ullage_runtime.engines.worker.engine import WorkerEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", Shape(context=2048))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[WorkerEngine]:
    """A worker with room for all."""
    engine = await loaded(model, parallel=16)
    yield engine
    await engine.unload()


async def test_requests_at_once_are_computed_in_one_batch(engine: WorkerEngine) -> None:
    prompts = [f"{n:02d} begins here" for n in range(16)]
    before = await engine.stats()
    answers = await asyncio.gather(
        *(chunks_of(engine, completion(p, max_tokens=24, logprobs=0)) for p in prompts)
    )
    after = await engine.stats()
    assert after.batch_width_max > 8
    assert after.steps - before.steps < 16 * 24 / 2
    assert all(len(written(a)) == 24 for a in answers)
    for prompt, answer in list(zip(prompts, answers, strict=True))[::4]:
        await check_alone(engine, ids_of(prompt), written(answer))


async def test_cells_for_a_quarter_of_the_demand_fail_nobody(model: Path) -> None:
    engine = await loaded(model, 256, parallel=8)
    try:
        prompts = [f"{n:02d} wants more" for n in range(16)]
        requests = [completion(p, max_tokens=50, logprobs=0) for p in prompts]
        answers = await asyncio.gather(*(chunks_of(engine, r) for r in requests))
        stats = await engine.stats()
        assert [a[-1].finish for a in answers] == [FinishReason.LENGTH] * 16
        assert all(len(written(a)) == 50 for a in answers)
        assert stats.preemptions > 0
        assert stats.kv_cells_running == stats.requests_running == stats.requests_waiting == 0
        for prompt, answer in list(zip(prompts, answers, strict=True))[::3]:
            await check_alone(engine, ids_of(prompt), written(answer), every=10)
    finally:
        await engine.unload()


async def test_a_prompt_that_begins_like_another_is_not_computed_again(
    engine: WorkerEngine,
) -> None:
    beginning = "You are a patient assistant. " * 13
    common = len(ids_of(beginning))
    before = await engine.stats()
    first = await chunks_of(engine, completion(beginning + "one", max_tokens=4))
    second = await chunks_of(engine, completion(beginning + "two", max_tokens=4))
    after = await engine.stats()
    assert first[-1].usage == Usage(common + 3, 4)
    assert second[-1].usage == Usage(common + 3, 4, cached_tokens=common)
    assert second[0].usage == Usage(common + 3, 0, cached_tokens=common)
    assert after.prefix_tokens - before.prefix_tokens == common
    prompt = completion(beginning + "two", max_tokens=20, logprobs=0)
    answer = written(await chunks_of(engine, prompt))
    alone = replace(prompt, tenant="alone")
    assert (await chunks_of(engine, alone))[-1].usage == Usage(common + 3, 20)
    await check_alone(engine, ids_of(beginning + "two"), answer)


async def test_prompts_that_come_together_share_their_beginning(engine: WorkerEngine) -> None:
    beginning = "All of us were sent at once, with the same long words before. " * 8
    answers = await asyncio.gather(
        *(chunks_of(engine, completion(f"{beginning}{n}", max_tokens=4)) for n in range(4))
    )
    cached = sorted(a[-1].usage.cached_tokens for a in answers if a[-1].usage)
    assert cached[0] == 0
    assert all(tokens > len(beginning) - 64 for tokens in cached[1:])


async def test_a_request_ends_when_its_time_is_over(engine: WorkerEngine) -> None:
    began = asyncio.get_running_loop().time()
    request = replace(completion("Hello"), timeout_seconds=0.05)
    with pytest.raises(RequestTimeout):
        await chunks_of(engine, request)
    assert asyncio.get_running_loop().time() - began < 5
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_cancelling_in_any_step_leaves_nothing_behind(engine: WorkerEngine) -> None:
    async def given_up(n: int) -> None:
        task = asyncio.create_task(chunks_of(engine, completion(f"{n} " * n, max_tokens=400)))
        await asyncio.wait({task}, timeout=0.01 * n)
        task.cancel()
        await asyncio.wait({task})

    await asyncio.gather(*(given_up(n) for n in range(1, 25)))

    async def idle() -> bool:
        stats = await engine.stats()
        return stats.requests_running == stats.requests_waiting == stats.kv_cells_running == 0

    await eventually(idle)
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_a_worker_killed_under_many_streams_fails_each_of_them_once(model: Path) -> None:
    engine = await loaded(model)
    streams = [
        asyncio.create_task(chunks_of(engine, completion(f"{n} and on")), name=str(n))
        for n in range(20)
    ]

    async def wide() -> bool:
        return (await engine.stats()).batch_width > 4

    await eventually(wide)
    os.kill(engine.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*streams, return_exceptions=True)
    assert all(isinstance(o, EngineFailed) for o in outcomes)
    await engine.unload()
    replacement = await loaded(model)
    assert await text_of(replacement, completion("Hello", max_tokens=5))
    assert (await replacement.stats()).kv_cells_running == 0
    await replacement.unload()


@pytest.mark.parametrize("cache", [CacheType.Q8_0, CacheType.Q4_0])
async def test_a_smaller_form_of_keys_and_values_takes_less_memory(
    tmp_path: Path, cache: CacheType
) -> None:
    shape = Shape(width=128, heads=2, context=1024)
    path = write_model(tmp_path / "wide.gguf", shape)
    engine = await loaded(path, kv_cache_type=cache)
    try:
        tokens = 1024 * 2 * 2 * 128
        share = {CacheType.Q8_0: 34 / 32, CacheType.Q4_0: 18 / 32}[cache]
        footprint = await engine.estimate(EngineSpec(path=str(path), kv_cache_type=cache))
        assert footprint.kv_cache == pytest.approx(tokens * share, rel=0.02)
        answers = await asyncio.gather(
            *(text_of(engine, completion(f"{n}", max_tokens=20)) for n in range(4))
        )
        assert all(answers)
    finally:
        await engine.unload()


async def test_a_form_that_the_model_cannot_take_is_a_load_error(model: Path) -> None:
    with pytest.raises(LoadError, match="cannot create a context"):
        await loaded(model, kv_cache_type=CacheType.Q8_0)


async def test_in_a_full_context_what_may_wait_does(model: Path) -> None:
    engine = await loaded(model, 1024, parallel=8)
    ended: list[str] = []

    async def ask(name: str, tokens: int, priority: int) -> str:
        request = replace(completion(f"{name} goes on", max_tokens=tokens), priority=priority)
        text = await text_of(engine, request)
        ended.append(name)
        return text

    async def is_full() -> bool:
        return (await engine.stats()).preemptions > 0

    try:
        flex = [asyncio.create_task(ask(f"flex {n:02d}", 400, -1)) for n in range(16)]
        await eventually(is_full)
        assert (await engine.stats()).requests_waiting > 0
        begun = len(ended)
        default = [asyncio.create_task(ask(f"default {n}", 20, 0)) for n in range(6)]
        assert all(await asyncio.gather(*default))
        assert len(ended) - begun <= len(default) + 2, "no more than had nearly ended"
        assert all(await asyncio.gather(*flex)), "and nobody is forgotten"
    finally:
        await engine.unload()


async def test_what_has_waited_for_long_waits_for_nobody(model: Path) -> None:
    asked = [
        ("first", 0, 0.0),
        ("young", -1, 0.0),
        ("old", -1, 2 * AGE_SECONDS + 1),
        ("default", 0, 0.0),
    ]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        ended = process.submit(ends_of, str(model), asked).result(60)
    assert ended == ["first", "old", "default", "young"]


async def test_one_at_a_time_is_a_setting_too(model: Path) -> None:
    engine = await loaded(model, parallel=1)
    try:
        requests: list[GenerateRequest] = [completion(f"{n}", max_tokens=10) for n in range(4)]
        assert all(await asyncio.gather(*(text_of(engine, r) for r in requests)))
        assert (await engine.stats()).batch_width_max == 1
    finally:
        await engine.unload()
