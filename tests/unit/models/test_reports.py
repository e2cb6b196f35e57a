"""When the pod's report counts as changed; in virtual time."""

import asyncio

import pytest

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel, ResidencyPolicy, ResidencySettings
from ullage_api.profile import LevelThresholds
from ullage_api.wire.pool_desired import PoolDesired


def test_an_unchanged_pod_reports_nothing_new_for_an_hour() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            sequence = pool.report().sequence
            for _ in range(5):
                await answer(pool)
            await asyncio.sleep(3600)
            assert pool.report().sequence == sequence

    in_virtual_time(scenario())


def test_a_long_poll_is_answered_by_the_next_change_or_at_its_timeout() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            loop = asyncio.get_running_loop()
            first = await pool.changed(-1, 30)
            began = loop.time()
            assert (await pool.changed(first.sequence, 30)).sequence == first.sequence
            assert loop.time() - began == 30
            poll = asyncio.create_task(pool.changed(first.sequence, 30))
            await asyncio.sleep(1)
            began = loop.time()
            await pool.apply(world.document(wanted()))
            assert (await poll).acknowledged == 1
            assert loop.time() == began

    in_virtual_time(scenario())


def test_a_fetch_is_reported_in_coarse_steps() -> None:
    async def scenario() -> None:
        world = World()
        world.source.seconds = 200
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            seen = []
            sequence = -1
            while not (report := await pool.changed(sequence, 60)).models[0].weights_ready:
                sequence = report.sequence
                if report.models[0].fetched_bytes is not None:
                    seen.append(report.models[0].fetched_bytes)
            assert seen == sorted(set(seen))
            assert 15 <= len(seen) <= 21

    in_virtual_time(scenario())


def test_small_drifts_of_a_models_size_are_not_reported() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            sequence = pool.report().sequence
            world.engines.resident += 2 * MIB
            await asyncio.sleep(20)
            assert pool.report().sequence == sequence
            assert pool.report().devices[0].ledger_bytes == 92 * MIB
            world.engines.resident += 20 * MIB
            await asyncio.sleep(20)
            assert pool.report().sequence == sequence + 1
            model = pool.report().models[0]
            assert model.active is not None
            assert model.active.resident_bytes == 112 * MIB

    in_virtual_time(scenario())


def test_older_and_foreign_documents_are_not_accepted() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            old = world.document(wanted())
            new = world.document()
            assert await pool.apply(new)
            assert not await pool.apply(old)
            assert await pool.apply(new), "the same one again is no harm"
            foreign = PoolDesired(namespace="other", pool="default").sealed(99)
            with pytest.raises(ValueError, match="other/default"):
                await pool.apply(foreign)

    in_virtual_time(scenario())


def test_a_recreated_resource_of_the_same_name_is_another_model() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(uid="a")))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(wanted(uid="b")))
            await until(pool, lambda m: m.uid == "b" and m.reason is Reason.SERVING)
            await asyncio.sleep(1)
            assert len(world.engines.alive) == 1

    in_virtual_time(scenario())


def test_a_level_that_changes_is_news_and_bytes_within_it_are_not() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            stays = ResidencySettings(policy=ResidencyPolicy.PINNED)
            await pool.apply(world.document(wanted(residency=stays)))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            report = pool.report()
            assert report.level is MemoryLevel.LOW
            world.device.used = 500 * MIB
            await asyncio.sleep(20)
            assert pool.report().sequence == report.sequence
            world.device.used = 950 * MIB
            fuller = await pool.changed(report.sequence, 60)
            assert fuller.level is MemoryLevel.CRITICAL
            assert fuller.devices[0].used_bytes == 950 * MIB
            world.device.used = 0
            emptier = await pool.changed(fuller.sequence, 60)
            assert emptier.level is MemoryLevel.LOW

    in_virtual_time(scenario())


def test_thresholds_are_the_pools_own() -> None:
    async def scenario() -> None:
        world = World()
        world.device.used = 500 * MIB
        async with world.pool() as pool:
            document = world.document(wanted())
            levels = LevelThresholds(moderate=20, high=40, critical=60)
            settings = document.settings.model_copy(update={"levels": levels})
            await pool.apply(document.model_copy(update={"settings": settings}).sealed(9))
            await asyncio.sleep(5)
            assert pool.report().level is MemoryLevel.HIGH

    in_virtual_time(scenario())
