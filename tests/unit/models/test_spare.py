"""The engine that is ready before it is needed: when there is one, who takes it, when it leaves."""

import asyncio

from prometheus_client import CollectorRegistry

from tests.support.fake_models import MIB, FakeEngine, VirtualClock, World, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import ResidencyPolicy, ResidencySettings
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.budgets import MemoryPolicy, Share
from ullage_runtime.core.decisions import Decisions
from ullage_runtime.core.errors import LoadError
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.metrics import ModelMetrics
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.room import Room
from ullage_runtime.models.spare import SETTLE_SECONDS, SpareEngine
from ullage_runtime.models.warm import WarmTier

EMPTY = 10 * MIB
ON_DEMAND = ResidencySettings(policy=ResidencyPolicy.ON_DEMAND, unload_seconds=30)


def kind_of(path: str) -> str:
    """Return the kind of a fake file: what its name begins with."""
    return path.removeprefix("file:").partition("-")[0]


def world_of(mib: int = 1000) -> World:
    world = World()
    world.device.size = mib * MIB
    world.engines.resident = 100 * MIB
    world.engines.empty = EMPTY
    return world


def model(name: str, **fields: object) -> DesiredModel:
    return wanted(name, f"file:{name}", uid=name, **fields)  # type: ignore[arg-type]


def spares(world: World) -> list[FakeEngine]:
    return [engine for engine in world.engines.alive if not engine.is_loaded]


def ledger(pool: ModelPool) -> int:
    return pool.report().devices[0].ledger_bytes


async def served(world: World, pool: ModelPool, *models: DesiredModel) -> None:
    await pool.apply(world.document(*models))
    for one in models:
        await until(pool, lambda m: m.reason is Reason.SERVING, one.name)


async def settle() -> None:
    await asyncio.sleep(3 * SETTLE_SECONDS)


def test_the_next_load_takes_the_spare_with_its_bytes_and_another_one_follows() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await settle()
            assert world.engines.made == []
            await served(world, pool, model("gguf-a"))
            assert spares(world) == []
            await settle()
            (spare,) = spares(world)
            assert ledger(pool) == 100 * MIB + EMPTY
            await served(world, pool, model("gguf-a"), model("gguf-b"))
            assert spare.is_loaded
            assert spare.spec is not None
            assert spare.spec.path == "file:gguf-b"
            assert ledger(pool) == 200 * MIB
            await settle()
            assert len(spares(world)) == 1
        assert world.engines.alive == []
        assert ledger(pool) == 0

    in_virtual_time(scenario())


def test_a_load_of_another_kind_ends_the_spare_and_the_next_one_is_of_its_kind() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"))
            await settle()
            (spare,) = spares(world)
            await served(world, pool, model("gguf-a"), model("onnx-b"))
            assert spare.over.is_set()
            assert ledger(pool) == 200 * MIB
            await settle()
            (spare,) = spares(world)
            assert spare.path == "file:onnx-b"

    in_virtual_time(scenario())


def test_there_is_none_without_room_and_it_costs_no_model_its_place() -> None:
    async def scenario() -> None:
        world = world_of(mib=205)
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"), model("gguf-b"))
            await settle()
            assert spares(world) == []
            await pool.apply(world.document(model("gguf-a")))
            await settle()
            assert len(spares(world)) == 1
            # 95 MiB are free beside the spare, and the model needs 100.
            await served(world, pool, model("gguf-a"), model("gguf-b"))
            assert pool.decisions() == ()
            assert ledger(pool) == 200 * MIB

    in_virtual_time(scenario())


def test_it_leaves_when_models_grow_into_its_room() -> None:
    async def scenario() -> None:
        world = world_of(mib=200)
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"))
            await settle()
            assert len(spares(world)) == 1
            world.engines.resident = 195 * MIB
            await asyncio.sleep(30)
            assert spares(world) == []
            assert ledger(pool) == 195 * MIB

    in_virtual_time(scenario())


def test_it_leaves_at_the_critical_level_and_comes_back_below_the_high_one() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"))
            await settle()
            world.device.used = 850 * MIB
            await asyncio.sleep(30)
            assert len(spares(world)) == 1
            world.device.used = 950 * MIB
            await asyncio.sleep(30)
            assert spares(world) == []
            world.device.used = 850 * MIB
            await asyncio.sleep(30)
            assert spares(world) == []
            world.device.used = 300 * MIB
            await asyncio.sleep(60)
            assert len(spares(world)) == 1

    in_virtual_time(scenario())


def test_one_that_dies_is_replaced_after_the_next_load_only() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"))
            await settle()
            spares(world)[0].die()
            await asyncio.sleep(60)
            assert spares(world) == []
            assert ledger(pool) == 100 * MIB
            await served(world, pool, model("gguf-a"), model("gguf-b"))
            await settle()
            assert len(spares(world)) == 1

    in_virtual_time(scenario())


def test_one_that_has_just_died_is_not_loaded_into() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a"))
            await settle()
            spares(world)[0].die()
            await asyncio.sleep(0.01)
            await served(world, pool, model("gguf-a"), model("gguf-b"))
            found = pool.report().model("gguf-b")
            assert found is not None
            assert found.restarts == 0

    in_virtual_time(scenario())


def test_one_that_cannot_be_started_is_not_tried_again_and_hurts_nobody() -> None:
    async def scenario() -> None:
        world = world_of()
        refused: list[str] = []

        def choosy(path: str) -> str:
            if world.engines.alive and path not in refused:
                refused.append(path)
                raise LoadError(Reason.INVALID_MODEL, "the file is gone", final=True)
            return "gguf"

        async with world.pool(kind_of=choosy) as pool:
            await served(world, pool, model("gguf-a"))
            await asyncio.sleep(60)
            assert refused == ["file:gguf-a"]
            assert spares(world) == []
            assert ledger(pool) == 100 * MIB

    in_virtual_time(scenario())


def test_who_loads_may_count_on_the_spares_bytes() -> None:
    async def scenario() -> None:
        world, clock = world_of(), VirtualClock()
        governor = Governor([world.device], policy=MemoryPolicy(models=Share(1.0, 0)))
        spare = SpareEngine(world.engines, kind_of, governor, clock)
        room = Room(
            governor,
            clock,
            Decisions(),
            ModelMetrics(CollectorRegistry()),
            spare,
            WarmTier(governor, clock),
        )
        await spare.take("file:gguf-a")
        await settle()
        await spare.tend(is_wanted=True, is_calm=room.is_calm)
        assert governor.free == 1000 * MIB - EMPTY
        assert room.has(1000 * MIB, 1)
        assert not room.has(1000 * MIB + 1, 1)
        await spare.close()
        assert governor.free == 1000 * MIB

    in_virtual_time(scenario())


def test_a_pool_without_models_keeps_none() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool(kind_of=kind_of) as pool:
            await served(world, pool, model("gguf-a", residency=ON_DEMAND))
            await settle()
            assert len(spares(world)) == 1
            await pool.apply(world.document())
            await settle()
            assert world.engines.alive == []
            assert ledger(pool) == 0

    in_virtual_time(scenario())


def test_without_kinds_there_is_never_one() -> None:
    async def scenario() -> None:
        world = world_of()
        async with world.pool() as pool:
            await served(world, pool, model("gguf-a"))
            await asyncio.sleep(60)
            assert spares(world) == []

    in_virtual_time(scenario())
