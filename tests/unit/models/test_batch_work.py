"""Batch work makes way while memory is critical, and is done when it is not; in virtual time."""

import asyncio

import pytest

from tests.support.fake_models import World, until
from tests.support.virtual_time import in_virtual_time
from tests.unit.models.test_levels_act import fill
from tests.unit.models.test_residency import (
    loaded,
    long_request,
    model,
    of,
    proven,
    small_world,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel, Priority, ResidencySettings
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.errors import MemoryBusy, RequestTimeout
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import Lease

BATCH = ResidencySettings(priority=Priority.BATCH)
LEVEL_SECONDS = 15.0
"""Until a changed level is known for sure, also one that falls."""


async def asked(
    pool: ModelPool, name: str, tokens: int = 10, *, background: bool = False, told: bool = False
) -> int:
    """Return how many tokens a request got, as one of the HTTP surface gets them."""

    async def work(lease: Lease) -> int:
        return len([chunk async for chunk in lease.generate(long_request(tokens))])

    return await under_lease(
        pool, pool.find(name), work, tenant="", background=background, is_untold=lambda: not told
    )


def metric(pool: ModelPool, name: str) -> float:
    value = pool.registry.get_sample_value(name)
    assert value is not None
    return value


async def become(world: World, pool: ModelPool, percent: int, level: MemoryLevel) -> None:
    """Have memory be in use to a share, and wait until its level says so."""
    fill(world, percent)
    async with asyncio.timeout(LEVEL_SECONDS):
        sequence = -1
        while (report := await pool.changed(sequence, LEVEL_SECONDS)).level is not level:
            sequence = report.sequence


def test_requests_of_a_batch_model_wait_while_memory_is_critical_and_are_then_answered() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("night", residency=BATCH))
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            batch = [asyncio.create_task(asked(pool, "night")) for _ in range(3)]
            await asyncio.sleep(10)
            assert not any(task.done() for task in batch)
            assert metric(pool, "ullage_batch_paused") == 1
            assert metric(pool, "ullage_batch_requests_waiting") == 3
            assert await asked(pool, "a") == 10, "other models answer meanwhile"
            await become(world, pool, 40, MemoryLevel.LOW)
            assert await asyncio.gather(*batch) == [10, 10, 10]
            assert metric(pool, "ullage_batch_paused") == 0
            assert metric(pool, "ullage_batch_requests_waiting") == 0

    in_virtual_time(scenario())


def test_what_runs_of_a_batch_model_makes_way_the_model_leaves_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            await proven(world, pool, model("night", residency=BATCH))
            batch = [asyncio.create_task(asked(pool, "night", 200)) for _ in range(3)]
            await asyncio.sleep(5)
            assert of(pool, "night").requests_running == 1
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            await asyncio.sleep(0.1)
            seen = of(pool, "night")
            assert (seen.requests_running, seen.requests_waiting) == (0, 0)
            assert world.engines.made[0].running == 0, "the engine computes none of it any more"
            await asyncio.sleep(10)
            assert loaded(world) == [], "nobody uses it, so that it leaves"
            assert pool.decisions()[0].rule == "Level"
            await become(world, pool, 40, MemoryLevel.LOW)
            assert await asyncio.gather(*batch) == [200, 200, 200]
            assert metric(pool, "ullage_batch_preemptions_total") == 1

    in_virtual_time(scenario())


def test_a_stream_that_its_client_has_seen_a_part_of_is_never_broken_off() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            await proven(world, pool, model("night", residency=BATCH))
            stream = asyncio.create_task(asked(pool, "night", 200, told=True))
            await asyncio.sleep(1)
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            assert await stream == 200
            assert metric(pool, "ullage_batch_preemptions_total") == 0
            await asyncio.sleep(10)
            assert loaded(world) == []

    in_virtual_time(scenario())


def test_work_in_the_background_makes_way_on_a_model_that_others_go_on_using() -> None:
    async def scenario() -> None:
        world = small_world(3)
        world.engines.sequences = 4
        async with world.pool() as pool:
            await proven(world, pool, model("a"))
            slow = asyncio.create_task(asked(pool, "a", 200, background=True))
            client = asyncio.create_task(asked(pool, "a", 200))
            await asyncio.sleep(1)
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            await asyncio.sleep(0.1)
            assert of(pool, "a").requests_running == 1
            assert await client == 200
            assert not slow.done()
            await become(world, pool, 85, MemoryLevel.HIGH)
            assert await slow == 200

    in_virtual_time(scenario())


@pytest.mark.parametrize("percent", [70, 85])
def test_below_critical_batch_work_runs(percent: int) -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            await proven(world, pool, model("night", residency=BATCH))
            fill(world, percent)
            await asyncio.sleep(LEVEL_SECONDS)
            assert await asked(pool, "night") == 10
            assert await asked(pool, "night", background=True) == 10

    in_virtual_time(scenario())


def test_who_is_held_for_as_long_as_allowed_is_told_to_come_again() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            limits = ServingLimits(hold_seconds=30, request_seconds=300)
            await proven(world, pool, model("night", residency=BATCH, limits=limits))
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            with pytest.raises(MemoryBusy, match="batch work, which waits") as refused:
                await asked(pool, "night")
            assert refused.value.retry_after == 30
            limits = ServingLimits(hold_seconds=300, request_seconds=20)
            await pool.apply(world.document(model("night", residency=BATCH, limits=limits)))
            with pytest.raises(RequestTimeout):
                await asked(pool, "night")

    in_virtual_time(scenario())


def test_a_pod_that_ends_waits_for_no_level() -> None:
    async def scenario() -> None:
        world = small_world(3)
        pool = world.pool()
        async with pool:
            await proven(world, pool, model("night", residency=BATCH))
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            waits = asyncio.create_task(asked(pool, "night"))
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            await pool.close(30)
            await asyncio.wait({waits}, timeout=1)
            assert waits.done()
            assert asyncio.get_running_loop().time() - began < 30

    in_virtual_time(scenario())


def test_another_priority_takes_effect_with_the_next_request() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool() as pool:
            await proven(world, pool, model("night", residency=BATCH))
            await become(world, pool, 95, MemoryLevel.CRITICAL)
            await pool.apply(world.document(model("night")))
            assert await asked(pool, "night") == 10
            await until(pool, lambda m: m.reason is Reason.SERVING, "night")

    in_virtual_time(scenario())
