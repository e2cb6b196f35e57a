"""Models that share too little memory: who leaves, who waits, who comes back; in virtual time."""

import asyncio

import pytest

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import Priority, ResidencyPolicy, ResidencySettings
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.decisions import Rule
from ullage_runtime.core.domain import Footprint, GenerateRequest, Sampling
from ullage_runtime.core.errors import InsufficientMemory, LoadError, MemoryBusy, Overloaded
from ullage_runtime.models.pool import ModelPool

PINNED = ResidencySettings(policy=ResidencyPolicy.PINNED)
PRELOAD = ResidencySettings(policy=ResidencyPolicy.PRELOAD)


def small_world(models: int = 2) -> World:
    """Return a world with room for so many models of 100 MiB."""
    world = World()
    world.device.size = models * 100 * MIB + 50 * MIB
    world.engines.resident = 100 * MIB
    return world


def model(name: str, **fields: object) -> DesiredModel:
    return wanted(name, f"file:{name}", uid=name, **fields)  # type: ignore[arg-type]


def of(pool: ModelPool, name: str) -> ReportedModel:
    found = pool.report().model(name)
    assert found is not None
    return found


def loaded(world: World) -> list[str]:
    return sorted(e.path.removeprefix("file:") for e in world.engines.alive if e.is_loaded)


def long_request(tokens: int) -> GenerateRequest:
    return GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=tokens))


async def proven(world: World, pool: ModelPool, *models: DesiredModel, percent: int = 100) -> None:
    """Have every model loaded once."""
    await pool.apply(world.document(*models, percent=percent))
    for one in models:
        await until(pool, lambda m: m.reason in {Reason.SERVING, Reason.IDLE}, one.name)


def test_each_model_shows_once_that_it_serves_and_then_idle_ones_leave() -> None:
    async def scenario() -> None:
        world = small_world()
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"), model("c"))
            assert len(loaded(world)) == 2
            assert "c" in loaded(world)
            (gone,) = (m for m in pool.report().models if m.reason is Reason.IDLE)
            assert gone.residency is Residency.DISK
            assert gone.last_eviction is not None
            assert gone.last_eviction.rule == "Demand"
            assert gone.last_eviction.beneficiary == "c"
            assert gone.last_eviction.bytes == 100 * MIB
            tried = len(world.engines.made)
            await asyncio.sleep(3600)
            assert len(world.engines.made) == tried, "nobody asks, so nothing moves"

    in_virtual_time(scenario())


def test_a_request_brings_an_idle_model_back_and_all_share_one_load() -> None:
    async def scenario() -> None:
        world = small_world(1)
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"))
            await until(pool, lambda m: m.reason is Reason.IDLE, "a")
            before = len(world.engines.made)
            answers = await asyncio.gather(*(answer(pool, "a") for _ in range(20)))
            assert [chunks[0].text for chunks in answers] == ["file:a:1 "] * 20
            assert len(world.engines.made) == before + 1
            assert loaded(world) == ["a"]

    in_virtual_time(scenario())


def test_a_client_that_leaves_ends_the_load_for_nobody() -> None:
    async def scenario() -> None:
        world = small_world(1)
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"))
            first = asyncio.create_task(answer(pool, "a"))
            second = asyncio.create_task(answer(pool, "a"))
            await asyncio.sleep(5.5)
            first.cancel()
            assert len(await second) == 10
            lonely = asyncio.create_task(answer(pool, "b"))
            await asyncio.sleep(1)
            lonely.cancel()
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")

    in_virtual_time(scenario())


def test_traffic_over_more_models_than_fit_is_answered_every_time() -> None:
    async def scenario() -> None:
        world = small_world()
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"), model("c"))

            async def client(name: str) -> int:
                return sum([len(await answer(pool, name)) == 10 for _ in range(60)])

            names = "abcabcabc"
            answered = await asyncio.gather(*(client(name) for name in names))
            assert answered == [60] * len(names)
            assert pool.report().devices[0].ledger_bytes <= world.device.size
            rules = {d.rule for d in pool.decisions()}
            assert Rule.TURN in rules, "they were in use without a pause"

    in_virtual_time(scenario())


def test_a_stream_is_never_cut_for_another_model() -> None:
    async def scenario() -> None:
        world = small_world(1)
        async with world.pool() as pool:
            await proven(world, pool, model("a"))
            stream = asyncio.create_task(answer(pool, "a", long_request(400)))
            await asyncio.sleep(1)
            await pool.apply(world.document(model("a"), model("b")))
            other = asyncio.create_task(answer(pool, "b"))
            await asyncio.sleep(30)
            assert loaded(world) == ["a"]
            assert of(pool, "b").reason is Reason.WAITING_FOR_MEMORY
            assert len(await stream) == 400
            assert len(await other) == 10

    in_virtual_time(scenario())


def test_a_request_whose_model_gets_no_memory_in_its_time_is_told_so() -> None:
    async def scenario() -> None:
        world = small_world(1)
        limits = ServingLimits(hold_seconds=30)
        async with world.pool() as pool:
            await proven(world, pool, model("a"))
            stream = asyncio.create_task(answer(pool, "a", long_request(1000)))
            await asyncio.sleep(1)
            await pool.apply(world.document(model("a"), model("b", limits=limits)))
            await until(pool, lambda m: m.reason is Reason.WAITING_FOR_MEMORY, "b")
            began = asyncio.get_running_loop().time()
            with pytest.raises(MemoryBusy, match=r"needs 100\.0 MiB") as refused:
                await answer(pool, "b")
            assert asyncio.get_running_loop().time() - began == pytest.approx(30)
            assert refused.value.retry_after
            assert len(await answer(pool, "a")) == 10, "who was to make room goes on"
            assert len(await stream) == 1000

    in_virtual_time(scenario())


def test_a_pinned_model_never_leaves_and_the_other_one_waits() -> None:
    async def scenario() -> None:
        world = small_world(1)
        async with world.pool() as pool:
            await proven(world, pool, model("a", residency=PINNED))
            await pool.apply(world.document(model("a", residency=PINNED), model("b")))
            await until(pool, lambda m: m.reason is Reason.WAITING_FOR_MEMORY, "b")
            await asyncio.sleep(600)
            assert loaded(world) == ["a"]
            assert {d.rule for d in pool.decisions()} == {Rule.NO_ROOM}
            await pool.apply(world.document(model("a"), model("b")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")

    in_virtual_time(scenario())


def test_a_higher_priority_is_not_sent_away_for_a_lower_one() -> None:
    async def scenario() -> None:
        world = small_world(2)
        high = ResidencySettings(priority=Priority.HIGH)
        batch = ResidencySettings(priority=Priority.BATCH)
        models = (model("high", residency=high), model("batch", residency=batch))
        async with world.pool() as pool:
            await proven(world, pool, *models)
            await asyncio.sleep(100)
            await answer(pool, "batch")
            await asyncio.sleep(10)
            await pool.apply(world.document(*models, model("normal")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "normal")
            assert loaded(world) == ["high", "normal"]
            with pytest.raises(MemoryBusy):
                await asyncio.gather(answer(pool, "batch"), keep_busy(pool, "normal"))
            assert "high" in loaded(world)

    async def keep_busy(pool: ModelPool, name: str) -> None:
        for _ in range(200):
            await answer(pool, name)

    in_virtual_time(scenario())


def test_a_model_that_never_fits_sends_nobody_away() -> None:
    async def scenario() -> None:
        world = small_world(2)
        world.engines.footprints["file:huge"] = Footprint(weights=900 * MIB)
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"))
            await asyncio.sleep(60)
            began = asyncio.get_running_loop().time()
            await pool.apply(world.document(model("a"), model("b"), model("huge")))
            await until(pool, lambda m: m.final, "huge")
            assert asyncio.get_running_loop().time() - began <= 2
            with pytest.raises(InsufficientMemory) as refused:
                await answer(pool, "huge")
            assert refused.value.details["suggestions"]
            assert loaded(world) == ["a", "b"]
            (decision,) = pool.decisions()
            assert (decision.rule, decision.model) == (Rule.NEVER_FITS, "huge")
            assert decision.bytes == 900 * MIB

    in_virtual_time(scenario())


def test_a_model_nobody_uses_leaves_after_its_time_and_a_pinned_one_stays() -> None:
    async def scenario() -> None:
        world = small_world(3)
        soon = ResidencySettings(unload_seconds=60)
        pinned = ResidencySettings(policy=ResidencyPolicy.PINNED, unload_seconds=60)
        async with world.pool() as pool:
            await proven(
                world, pool, model("a", residency=soon), model("b", residency=pinned), model("c")
            )
            await asyncio.sleep(40)
            assert len(await answer(pool, "a")) == 10
            await asyncio.sleep(59)
            assert loaded(world) == ["a", "b", "c"]
            await asyncio.sleep(3)
            assert loaded(world) == ["b", "c"]
            left = of(pool, "a")
            assert (left.reason, left.residency) == (Reason.IDLE, Residency.DISK)
            assert left.last_eviction is not None
            assert (left.last_eviction.rule, left.last_eviction.beneficiary) == ("Idle", None)
            assert len(await answer(pool, "a")) == 10

    in_virtual_time(scenario())


def test_a_preloaded_model_comes_back_by_itself_once_there_is_room() -> None:
    async def scenario() -> None:
        world = small_world(1)
        preload = model("a", residency=PRELOAD)
        async with world.pool() as pool:
            await proven(world, pool, preload)
            await pool.apply(world.document(preload, model("b")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")
            await asyncio.sleep(300)
            assert loaded(world) == ["b"], "it sends nobody away"
            await pool.apply(world.document(preload))
            await until(pool, lambda m: m.reason is Reason.SERVING, "a")
            assert loaded(world) == ["a"]

    in_virtual_time(scenario())


def test_a_preloaded_model_does_not_come_back_while_memory_is_nearly_full() -> None:
    async def scenario() -> None:
        world = small_world(1)
        preload = model("a", residency=PRELOAD)
        async with world.pool() as pool:
            await proven(world, pool, preload)
            await pool.apply(world.document(preload, model("b")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")
            world.device.used = world.device.own = world.device.size * 85 // 100
            await asyncio.sleep(10)
            await pool.apply(world.document(preload))
            await asyncio.sleep(300)
            assert loaded(world) == []
            assert await answer(pool, "a"), "who asks is answered"
            await pool.apply(world.document(preload, model("b")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")
            world.device.used = world.device.own = 0
            await pool.apply(world.document(preload))
            await until(pool, lambda m: m.reason is Reason.SERVING, "a")

    in_virtual_time(scenario())


def test_a_model_waits_for_a_neighbour_to_leave_and_then_loads() -> None:
    async def scenario() -> None:
        world = small_world(2)
        world.device.used, world.device.own = 200 * MIB, 0
        async with world.pool() as pool:
            await pool.apply(world.document(model("a")))
            waiting = await until(
                pool, lambda m: m.reason is Reason.WAITING_FOR_MEMORY and not m.final, "a"
            )
            assert "neighbours" in waiting.message
            await asyncio.sleep(30)
            assert loaded(world) == []
            world.device.used = 50 * MIB
            await until(pool, lambda m: m.reason is Reason.SERVING, "a")
            assert pool.report().devices[0].ledger_bytes == 100 * MIB

    in_virtual_time(scenario())


def test_a_neighbour_that_comes_between_estimate_and_load_is_waited_for() -> None:
    async def scenario() -> None:
        world = small_world(2)
        world.device.own = 0
        world.engines.load_seconds = 4
        no_memory = LoadError(Reason.LOAD_FAILED, "the device has no memory", final=False)
        world.engines.load_errors["file:a"] = [no_memory]
        async with world.pool() as pool:
            await pool.apply(world.document(model("a")))
            await until(pool, lambda m: m.residency is Residency.LOADING, "a")
            # What was promised is there no more when the engine asks the device for it.
            world.device.used = 200 * MIB
            await until(pool, lambda m: m.reason is Reason.LOAD_FAILED, "a")
            assert pool.report().devices[0].ledger_bytes == 0
            waiting = await until(pool, lambda m: m.reason is Reason.WAITING_FOR_MEMORY, "a")
            assert not waiting.final
            assert "neighbours" in waiting.message
            world.device.used = 0
            await until(pool, lambda m: m.reason is Reason.SERVING, "a")
            assert pool.report().devices[0].ledger_bytes == 100 * MIB

    in_virtual_time(scenario())


def test_a_model_that_took_more_than_there_was_is_loaded_again_with_its_true_size() -> None:
    async def scenario() -> None:
        world = small_world(2)
        async with world.pool() as pool:
            await proven(world, pool, model("a"))
            await asyncio.sleep(60)
            world.engines.resident = 180 * MIB
            await pool.apply(world.document(model("a"), model("b")))
            served = await until(pool, lambda m: m.reason is Reason.SERVING, "b")
            assert served.active is not None
            assert served.active.estimated_bytes == served.active.resident_bytes == 180 * MIB
            assert loaded(world) == ["b"]
            text = pool.registry.get_sample_value("ullage_load_overshoots_total", {"model": "b"})
            assert text == 1

    in_virtual_time(scenario())


def test_a_changed_target_of_a_model_that_left_is_loaded_and_shows_itself() -> None:
    async def scenario() -> None:
        world = small_world(1)
        async with world.pool() as pool:
            await proven(world, pool, model("a"), model("b"))
            await until(pool, lambda m: m.reason is Reason.IDLE, "a")
            newer = wanted("a", "file:v2", uid="a", generation=2)
            await pool.apply(world.document(newer, model("b")))
            served = await until(pool, lambda m: m.reason is Reason.SERVING, "a")
            assert served.active is not None
            assert served.active.uri == "file:v2"

    in_virtual_time(scenario())


def test_a_model_without_a_queue_comes_back_too_for_whoever_asks_next() -> None:
    async def scenario() -> None:
        world = small_world(1)
        no_queue = model("a", limits=ServingLimits(max_queue=0))
        async with world.pool() as pool:
            await proven(world, pool, no_queue, model("b"))
            await until(pool, lambda m: m.reason is Reason.IDLE, "a")
            with pytest.raises(Overloaded):
                await answer(pool, "a")
            await until(pool, lambda m: m.reason is Reason.SERVING, "a")
            assert len(await answer(pool, "a")) == 10

    in_virtual_time(scenario())
