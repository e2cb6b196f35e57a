"""How a model comes up, changes, fails and leaves; in virtual time, with fake engines."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencyPolicy, ResidencySettings
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.core.domain import Footprint, GenerateRequest, Sampling
from ullage_runtime.core.errors import (
    EngineFailed,
    InsufficientMemory,
    LoadError,
    ModelLoading,
    ModelNotFound,
    ModelSuspended,
    ModelUnavailable,
)
from ullage_runtime.models.pool import ModelPool


def test_an_applied_model_serves_and_says_so() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            assert await pool.apply(world.document(wanted()))
            model = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert model.residency is Residency.RESIDENT
            assert model.active is not None
            assert model.active == model.target
            assert model.active.resident_bytes == 90 * MIB
            assert model.active.estimated_bytes == 100 * MIB
            assert pool.report().devices[0].ledger_bytes == 90 * MIB
            assert (await answer(pool))[0].text == "file:v1:1 "
        assert not world.engines.alive
        assert pool.report().devices[0].ledger_bytes == 0

    in_virtual_time(scenario())


def test_a_request_is_held_while_its_model_loads() -> None:
    async def scenario() -> None:
        world = World()
        world.engines.load_seconds = 100
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            assert len(await answer(pool)) == 10

    in_virtual_time(scenario())


def test_a_request_held_too_long_is_told_to_come_back() -> None:
    async def scenario() -> None:
        world = World()
        world.engines.load_seconds = 500
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(limits=ServingLimits(hold_seconds=7))))
            began = asyncio.get_running_loop().time()
            with pytest.raises(ModelLoading) as refused:
                await answer(pool)
            assert asyncio.get_running_loop().time() - began == pytest.approx(7)
            assert refused.value.retry_after

    in_virtual_time(scenario())


def test_a_new_revision_loads_beside_the_old_one_and_streams_finish_on_the_old() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=100))
            stream = asyncio.create_task(answer(pool, request=long))
            await asyncio.sleep(1)
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            model = await until(pool, lambda m: m.active is not None and m.active.uri == "file:v2")
            assert model.reason is Reason.SERVING
            assert len(world.engines.alive) == 2
            assert (await answer(pool))[0].text == "file:v2:1 "
            chunks = await stream
            assert [c.text for c in chunks] == [f"file:v1:{n} " for n in range(1, 101)]
            await asyncio.sleep(1)
            assert [e.path for e in world.engines.alive] == ["file:v2"]

    in_virtual_time(scenario())


def test_a_revision_that_does_not_fit_beside_the_old_takes_its_place_and_requests_wait() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=50))
            stream = asyncio.create_task(answer(pool, request=long))
            await asyncio.sleep(1)
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            await asyncio.sleep(1)
            late = asyncio.create_task(answer(pool))
            assert len(await stream) == 50
            assert (await late)[0].text == "file:v2:1 "
            assert [e.path for e in world.engines.alive] == ["file:v2"]

    in_virtual_time(scenario())


def test_a_failed_replacement_that_took_the_old_one_down_brings_it_back() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        broken = LoadError(Reason.LOAD_FAILED, "no luck", final=False)
        world.engines.load_errors["file:v2"] = [broken] * 50
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            model = await until(pool, lambda m: m.final and m.active is not None)
            assert model.reason is Reason.LOAD_FAILED
            assert "brought back" in model.message
            assert model.active is not None
            assert model.active.uri == "file:v1"
            tried = len(world.engines.made)
            await asyncio.sleep(600)
            assert len(world.engines.made) == tried
            assert (await answer(pool))[0].text == "file:v1:1 "

    in_virtual_time(scenario())


def test_a_failed_target_leaves_the_old_one_serving_and_is_not_tried_again() -> None:
    async def scenario() -> None:
        world = World()
        world.source.files["file:v2"] = LoadError(Reason.INVALID_MODEL, "not a model", final=True)
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            model = await until(pool, lambda m: m.final)
            assert model.reason is Reason.INVALID_MODEL
            assert model.active is not None
            assert model.residency is Residency.RESIDENT
            await asyncio.sleep(3600)
            assert world.source.fetched.count("file:v2") == 1
            assert (await answer(pool))[0].text == "file:v1:1 "
            await pool.apply(world.document(wanted(uri="file:v2", generation=3)))
            await asyncio.sleep(10)
            assert world.source.fetched.count("file:v2") == 2

    in_virtual_time(scenario())


def test_a_passing_failure_is_retried_with_growing_pauses() -> None:
    async def scenario() -> None:
        world = World()
        gone = LoadError(Reason.SOURCE_UNAVAILABLE, "timed out", final=False)
        world.source.files["file:v1"] = gone
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await asyncio.sleep(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 + 1)
            assert len(world.source.fetched) == 9
            report = pool.report().model("chat")
            assert report is not None
            assert (report.reason, report.final) == (Reason.SOURCE_UNAVAILABLE, False)
            world.source.files["file:v1"] = "file:v1"
            assert len(await answer(pool)) == 10

    in_virtual_time(scenario())


def test_a_model_that_never_fits_is_refused_with_numbers_and_not_retried() -> None:
    async def scenario() -> None:
        world = World()
        world.engines.footprint = Footprint(weights=3000 * MIB, kv_cache=200 * MIB)
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(), percent=90))
            model = await until(pool, lambda m: m.final)
            assert model.reason is Reason.WILL_NEVER_FIT
            assert "needs 3.1 GiB (weights 2.9 GiB" in model.message
            assert "budget is 900.0 MiB of 1000.0 MiB" in model.message
            with pytest.raises(InsufficientMemory) as refused:
                await answer(pool)
            assert refused.value.details["required"] == 3200 * MIB
            assert refused.value.details["largest_component"] == "weights"
            assert not world.engines.alive
            await asyncio.sleep(600)
            assert len(world.engines.made) == 1
            await pool.apply(world.document(wanted(generation=2), percent=90))
            await asyncio.sleep(600)
            assert len(world.engines.made) == 1, "the estimate is remembered"

    in_virtual_time(scenario())


def test_a_larger_budget_lets_a_refused_model_in() -> None:
    async def scenario() -> None:
        world = World()
        world.engines.footprint = Footprint(weights=800 * MIB)
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(), percent=50))
            await until(pool, lambda m: m.reason is Reason.WILL_NEVER_FIT)
            await pool.apply(world.document(wanted(), percent=90))
            await until(pool, lambda m: m.reason is Reason.SERVING)

    in_virtual_time(scenario())


def test_a_model_waits_for_memory_and_loads_as_soon_as_another_leaves() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        async with world.pool() as pool:
            pinned = wanted("chat", residency=ResidencySettings(policy=ResidencyPolicy.PINNED))
            await pool.apply(world.document(pinned, wanted("other", "file:o")))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            waiting = await until(pool, lambda m: m.reason is Reason.WAITING_FOR_MEMORY, "other")
            assert not waiting.final
            assert len(world.engines.alive) == 1
            await asyncio.sleep(300)
            began = asyncio.get_running_loop().time()
            await pool.apply(world.document(wanted("other", "file:o")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "other")
            assert asyncio.get_running_loop().time() - began < 5

    in_virtual_time(scenario())


def test_a_dead_engine_fails_its_requests_and_is_replaced() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            first = asyncio.create_task(answer(pool))
            queued = asyncio.create_task(answer(pool))
            await asyncio.sleep(0.35)
            world.engines.made[0].die()
            with pytest.raises(EngineFailed):
                await first
            assert len(await queued) == 10
            model = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert model.restarts == 1
            assert pool.report().devices[0].ledger_bytes == 90 * MIB
            await asyncio.sleep(70)
            report = pool.report().model("chat")
            assert report is not None
            assert report.restarts == 0

    in_virtual_time(scenario())


def test_an_engine_that_keeps_dying_is_a_crash_loop_that_backs_off() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            for _ in range(3):
                await until(pool, lambda m: m.reason is Reason.SERVING)
                world.engines.alive[0].die()
                await until(pool, lambda m: m.reason is not Reason.SERVING)
            model = await until(pool, lambda m: m.reason is Reason.CRASH_LOOPING)
            assert model.restarts == 3
            assert not model.final
            assert "SIGKILL" in model.message
            model = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert (await answer(pool))[0].text == "file:v1:1 "

    in_virtual_time(scenario())


def test_suspending_drains_refuses_and_keeps_nothing_in_memory() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            stream = asyncio.create_task(answer(pool))
            await asyncio.sleep(0.2)
            await pool.apply(world.document(wanted(suspended=True, generation=2)))
            with pytest.raises(ModelSuspended):
                await answer(pool)
            assert len(await stream) == 10
            model = await until(pool, lambda m: m.residency is Residency.DISK)
            assert model.reason is Reason.SUSPENDED
            assert model.weights_ready
            assert pool.report().devices[0].ledger_bytes == 0
            await pool.apply(world.document(wanted(generation=3)))
            assert len(await answer(pool)) == 10

    in_virtual_time(scenario())


def test_removing_a_model_drains_it_and_forgets_it() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(aliases=("light",))))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            assert pool.find("light").name == "chat"
            assert leases(pool) == 0
            stream = asyncio.create_task(answer(pool))
            await asyncio.sleep(0.2)
            assert leases(pool) == 1
            await pool.apply(world.document())
            with pytest.raises(ModelNotFound):
                pool.find("light")
            assert pool.report().models == ()
            assert len(await stream) == 10
            assert leases(pool) is None
            await asyncio.sleep(1)
            assert not world.engines.alive

    in_virtual_time(scenario())


def leases(pool: ModelPool) -> float | None:
    return pool.registry.get_sample_value("ullage_leases", {"model": "chat"})


def test_limits_aliases_and_labels_change_without_a_reload() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            changed = wanted(aliases=("x",), limits=ServingLimits(max_queue=1), generation=2)
            await pool.apply(world.document(changed))
            await asyncio.sleep(60)
            assert len(world.engines.made) == 1
            assert pool.find("x").name == "chat"
            report = pool.report().model("chat")
            assert report is not None
            assert report.generation == 2

    in_virtual_time(scenario())


def test_other_engine_settings_are_another_revision() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            first = await until(pool, lambda m: m.reason is Reason.SERVING)
            longer = wanted(engine=EngineSettings(context_length=1024), generation=2)
            await pool.apply(world.document(longer))
            second = await until(
                pool, lambda m: m.active is not None and m.active.context_length == 1024
            )
            assert first.active is not None
            assert second.active is not None
            assert first.active.revision != second.active.revision

    in_virtual_time(scenario())


def test_another_address_of_the_same_bytes_is_no_reload() -> None:
    async def scenario() -> None:
        world = World()
        world.source.files = {"file:v1": "same", "https://example.org/v1": "same"}
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(wanted(uri="https://example.org/v1", generation=2)))
            model = await until(
                pool, lambda m: m.active is not None and m.active.uri.startswith("https")
            )
            assert model.active == model.target
            assert len(world.engines.made) == 1

    in_virtual_time(scenario())


def test_a_target_that_is_no_longer_wanted_is_given_up_in_the_midst_of_its_load() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            world.engines.load_seconds = 300
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            await asyncio.sleep(5)
            world.engines.load_seconds = 1
            await pool.apply(world.document(wanted(uri="file:v3", generation=3)))
            began = asyncio.get_running_loop().time()
            await until(pool, lambda m: m.active is not None and m.active.uri == "file:v3")
            assert asyncio.get_running_loop().time() - began < 5
            await asyncio.sleep(1)
            assert [e.path for e in world.engines.alive] == ["file:v3"]
            assert pool.report().devices[0].ledger_bytes == 90 * MIB

    in_virtual_time(scenario())


def test_a_model_placed_on_another_pod_is_not_loaded_here() -> None:
    async def scenario() -> None:
        world = World()
        elsewhere = wanted().model_copy(update={"ordinals": (1,)})
        async with world.pool() as pool:
            await pool.apply(world.document(elsewhere))
            await asyncio.sleep(60)
            assert not world.engines.made
            assert not pool.is_local(pool.find("chat"))
            with pytest.raises(ModelUnavailable):
                await answer(pool)

    in_virtual_time(scenario())


def test_closing_waits_for_leases_up_to_its_limit_and_then_cuts_them_off() -> None:
    async def scenario() -> None:
        world = World()
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(world.pool())
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            short = asyncio.create_task(answer(pool))
            await asyncio.sleep(0.1)
            closing = asyncio.create_task(pool.close(5))
            assert len(await short) == 10
            await closing
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=1000))
            cut = asyncio.create_task(answer(pool, request=long))
            await asyncio.sleep(0.1)
            await pool.close(5)
            with pytest.raises(EngineFailed):
                await cut
            assert not world.engines.alive

    in_virtual_time(scenario())


def test_a_client_that_leaves_gives_its_turn_to_the_next() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=1000))
            async with pool.lease(pool.find("chat")) as lease:
                queued = asyncio.create_task(answer(pool))
                async with aclosing(lease.generate(long)) as chunks:  # type: ignore[type-var]
                    async for _ in chunks:
                        break
                assert world.engines.made[0].running == 0
                assert not queued.done()
            assert len(await queued) == 10

    in_virtual_time(scenario())
