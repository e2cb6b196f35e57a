"""The bounded queue in front of a model; in virtual time."""

import asyncio

import pytest

from tests.support.fake_models import World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.domain import GenerateRequest, Sampling
from ullage_runtime.core.errors import Overloaded, RequestTimeout
from ullage_runtime.core.scheduling.sequence import AGE_SECONDS


def test_one_more_than_may_wait_is_refused() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(max_queue=2))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            tasks = [asyncio.create_task(answer(pool)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded) as refused:
                await answer(pool)
            assert refused.value.retry_after
            report = pool.report().model("chat")
            assert report is not None
            assert (report.requests_running, report.requests_waiting) == (1, 2)
            assert [len(chunks) for chunks in await asyncio.gather(*tasks)] == [10, 10, 10]

    in_virtual_time(scenario())


def test_without_a_queue_a_free_engine_still_answers() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(max_queue=0))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            assert len(await answer(pool)) == 10

    in_virtual_time(scenario())


def test_requests_are_answered_in_the_order_of_their_arrival() -> None:
    async def scenario() -> None:
        world = World()
        done: list[int] = []
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)

            async def one(number: int) -> None:
                await answer(pool)
                done.append(number)

            await asyncio.gather(*(one(number) for number in range(5)))
        assert done == list(range(5))

    in_virtual_time(scenario())


def test_a_request_that_waits_beyond_its_limit_times_out_and_leaves_the_queue() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            limits = ServingLimits(request_seconds=30, hold_seconds=1)
            await pool.apply(world.document(wanted(limits=limits)))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            async with pool.lease(pool.find("chat")):
                with pytest.raises(RequestTimeout):
                    await answer(pool)
                report = pool.report().model("chat")
                assert report is not None
                assert report.requests_waiting == 0
            assert len(await answer(pool)) == 10

    in_virtual_time(scenario())


def test_a_stream_beyond_its_limit_times_out_and_is_cancelled() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(request_seconds=5))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=1000))
            with pytest.raises(RequestTimeout):
                await answer(pool, request=long)
            assert world.engines.made[0].running == 0

    in_virtual_time(scenario())


def test_a_waiting_client_that_gives_up_takes_nobodys_turn() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            tasks = [asyncio.create_task(answer(pool)) for _ in range(3)]
            await asyncio.sleep(0.1)
            tasks[1].cancel()
            assert len(await tasks[2]) == 10
            report = pool.report().model("chat")
            assert report is not None
            assert (report.requests_running, report.requests_waiting) == (0, 0)

    in_virtual_time(scenario())


def asking(tenant: str, priority: int = 0) -> GenerateRequest:
    return GenerateRequest("r", prompt="hi", tenant=tenant, priority=priority)


def test_a_tenant_with_many_requests_does_not_hold_up_one_with_few() -> None:
    async def scenario() -> None:
        world = World()
        done: list[str] = []
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)

            async def one(tenant: str, number: int) -> None:
                await answer(pool, request=asking(tenant))
                done.append(f"{tenant}{number}")

            many = [asyncio.create_task(one("many", n)) for n in range(6)]
            await asyncio.sleep(0.1)
            few = [asyncio.create_task(one("few", n)) for n in range(2)]
            await asyncio.gather(*many, *few)
        # One runs, and as it ends the tenants take turns.
        assert done[0] == "many0"
        assert {done.index("few0"), done.index("few1")} <= {1, 2, 3, 4}
        assert [d for d in done if d.startswith("many")] == [f"many{n}" for n in range(6)]

    in_virtual_time(scenario())


def test_a_tenant_that_fills_the_queue_makes_room_for_one_with_fewer() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(max_queue=4))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            many = [asyncio.create_task(answer(pool, request=asking("many"))) for _ in range(5)]
            await asyncio.sleep(0.1)
            few = [asyncio.create_task(answer(pool, request=asking("few"))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await answer(pool, request=asking("few"))
            with pytest.raises(Overloaded):
                await answer(pool, request=asking("many"))
            for late in (many[4], many[3]):
                with pytest.raises(Overloaded, match="whose limit is 4") as made_room:
                    await late
                assert made_room.value.retry_after
            assert [len(chunks) for chunks in await asyncio.gather(*many[:3], *few)] == [10] * 5
            report = pool.report().model("chat")
            assert report is not None
            assert (report.requests_running, report.requests_waiting) == (0, 0)

    in_virtual_time(scenario())


def test_requests_that_may_wait_come_after_those_that_may_not_whoever_sends_them() -> None:
    async def scenario() -> None:
        world = World()
        done: list[str] = []
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)

            async def one(name: str, tenant: str, priority: int) -> None:
                await answer(pool, request=asking(tenant, priority))
                done.append(name)

            flex = [asyncio.create_task(one(f"flex{n}", f"f{n}", -1)) for n in range(3)]
            await asyncio.sleep(0.01)
            default = [asyncio.create_task(one(f"default{n}", "many", 0)) for n in range(3)]
            await asyncio.gather(*flex, *default)
        assert done == ["flex0", "default0", "default1", "default2", "flex1", "flex2"]

    in_virtual_time(scenario())


def test_requests_that_may_wait_do_not_do_so_for_ever() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            over = asyncio.Event()

            async def keeps_asking() -> None:
                while not over.is_set():
                    await answer(pool, request=asking("many"))

            others = [asyncio.create_task(keeps_asking()) for _ in range(3)]
            await asyncio.sleep(0.01)
            began = asyncio.get_running_loop().time()
            await answer(pool, request=asking("few", -1))
            waited = asyncio.get_running_loop().time() - began
            over.set()
            await asyncio.gather(*others)
        assert AGE_SECONDS <= waited < AGE_SECONDS + 10

    in_virtual_time(scenario())


def test_requests_that_may_wait_make_room_in_a_full_queue_and_are_made_none() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(max_queue=3))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            running = asyncio.create_task(answer(pool, request=asking("a")))
            await asyncio.sleep(0)
            flex = [asyncio.create_task(answer(pool, request=asking("b", -1))) for _ in range(2)]
            waiting = [asyncio.create_task(answer(pool, request=asking("a"))) for _ in range(3)]
            for late in flex:
                with pytest.raises(Overloaded):
                    await late
            with pytest.raises(Overloaded):
                await answer(pool, request=asking("c", -1))
            assert [len(each) for each in await asyncio.gather(running, *waiting)] == [10] * 4

    in_virtual_time(scenario())
