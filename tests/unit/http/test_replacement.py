"""What becomes of requests whose engine dies; in virtual time, with fake engines."""

import asyncio

import pytest

from tests.support.fake_models import FakeEngine, World, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.domain import GenerateRequest
from ullage_runtime.core.errors import EngineDied, RequestTimeout
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import Lease


async def count_to_ten(lease: Lease) -> list[str]:
    request = GenerateRequest("r", prompt="hi")
    return [chunk.text async for chunk in lease.generate(request)]


def asks(engine: FakeEngine) -> int:
    """Return how often an engine was asked, not counting those who tried it first."""
    return sum(request.request_id == "r" for request in engine.asked)


async def asked(pool: ModelPool, *, told: bool = False) -> list[str]:
    model = pool.find("chat")
    return await under_lease(pool, model, count_to_ten, tenant="", is_untold=lambda: not told)


async def serving(pool: ModelPool, world: World, **limits: int) -> None:
    await pool.apply(world.document(wanted(limits=ServingLimits(**limits))))
    await until(pool, lambda m: m.reason is Reason.SERVING)


def test_who_has_seen_nothing_is_answered_by_the_replacement() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await serving(pool, world)
            untold = asyncio.create_task(asked(pool))
            await asyncio.sleep(0.5)
            world.engines.made[0].die()
            assert len(await untold) == 10
            assert asks(world.engines.made[1]) == 1
            report = pool.report().model("chat")
            assert report is not None
            assert (report.requests_running, report.requests_waiting) == (0, 0)

    in_virtual_time(scenario())


def test_who_has_seen_something_is_told() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await serving(pool, world)
            told = asyncio.create_task(asked(pool, told=True))
            await asyncio.sleep(0.5)
            world.engines.made[0].die()
            with pytest.raises(EngineDied):
                await told

    in_virtual_time(scenario())


def test_a_request_that_kills_its_engine_is_given_a_second_one_and_no_third() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await serving(pool, world)
            request = asyncio.create_task(asked(pool))
            while not request.done():
                await asyncio.sleep(0.05)
                for engine in world.engines.alive:
                    if engine.running and asks(engine):
                        engine.die()
            with pytest.raises(EngineDied):
                await request
            await until(pool, lambda m: m.reason is Reason.SERVING and m.restarts == 2)
            assert [asks(engine) for engine in world.engines.made] == [1, 1, 0]

    in_virtual_time(scenario())


def test_it_goes_before_those_who_wait_though_the_queue_is_full() -> None:
    async def scenario() -> None:
        world = World()
        done: list[str] = []
        async with world.pool() as pool:
            await serving(pool, world, max_queue=1)

            async def one(name: str) -> None:
                await asked(pool)
                done.append(name)

            first = asyncio.create_task(one("first"))
            await asyncio.sleep(0.25)
            second = asyncio.create_task(one("second"))
            await asyncio.sleep(0.25)
            world.engines.made[0].die()
            await asyncio.gather(first, second)
        assert done == ["first", "second"]

    in_virtual_time(scenario())


def test_its_time_goes_on_from_its_arrival() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await serving(pool, world, request_seconds=30, hold_seconds=1000)
            began = asyncio.get_running_loop().time()
            request = asyncio.create_task(asked(pool))
            await asyncio.sleep(0.5)
            world.engines.load_seconds = 500
            world.engines.made[0].die()
            with pytest.raises(RequestTimeout):
                await request
            assert asyncio.get_running_loop().time() - began == pytest.approx(30)

    in_virtual_time(scenario())
