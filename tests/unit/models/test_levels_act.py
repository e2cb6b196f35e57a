"""What a pod does with idle models as its memory fills up; in virtual time."""

import asyncio
from pathlib import Path

import pytest

from tests.support.fake_models import MIB, FakeDevice, World, answer
from tests.support.virtual_time import in_virtual_time
from tests.unit.models.test_residency import (
    PINNED,
    PRELOAD,
    loaded,
    long_request,
    model,
    of,
    proven,
    small_world,
)
from tests.unit.models.test_warm import WarmWorld
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.core.decisions import Rule
from ullage_runtime.governor.policy import MemoryOverrides


def fill(world: World, percent: int) -> None:
    """Have a share of the device be in use."""
    world.device.used = world.device.own = world.device.size * percent // 100


def test_while_memory_is_high_a_model_that_nobody_uses_leaves_after_half_a_minute() -> None:
    async def scenario() -> None:
        world = small_world(3)
        async with world.pool(memory=MemoryOverrides(idle_threshold=120)) as pool:
            await proven(world, pool, model("a"), model("b"))
            await asyncio.sleep(300)
            fill(world, 85)
            assert len(await answer(pool, "b")) == 10
            await asyncio.sleep(6)
            assert loaded(world) == ["b"]
            await asyncio.sleep(23)
            assert loaded(world) == ["b"]
            await asyncio.sleep(5)
            assert loaded(world) == []
            left = of(pool, "a")
            assert (left.reason, left.residency) == (Reason.IDLE, Residency.DISK)
            assert left.last_eviction is not None
            assert (left.last_eviction.rule, left.last_eviction.beneficiary) == ("Level", None)
            assert pool.decisions()[-1].rule is Rule.LEVEL
            assert "as it was nearly full; 100.0 MiB are free again" in pool.decisions()[-1].message
            assert len(await answer(pool, "a")) == 10, "who asks is answered"

    in_virtual_time(scenario())


def test_while_memory_is_critical_whoever_is_idle_leaves_and_a_stream_goes_on() -> None:
    async def scenario() -> None:
        world = small_world(4)
        async with world.pool() as pool:
            kept = model("pinned", residency=PINNED)
            await proven(world, pool, model("a"), model("b", residency=PRELOAD), model("c"), kept)
            await asyncio.sleep(10)
            stream = asyncio.create_task(answer(pool, "c", request=long_request(300)))
            await asyncio.sleep(1)
            fill(world, 95)
            await asyncio.sleep(4)
            assert loaded(world) == ["c", "pinned"]
            assert len(await stream) == 300

    in_virtual_time(scenario())


def test_below_critical_what_would_come_back_by_itself_stays() -> None:
    async def scenario() -> None:
        world = small_world(2)
        async with world.pool(memory=MemoryOverrides(idle_threshold=120)) as pool:
            await proven(world, pool, model("a", residency=PRELOAD), model("b"))
            fill(world, 85)
            await asyncio.sleep(300)
            assert loaded(world) == ["a"]

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("percent", "threshold", "left"),
    [(70, None, ["a"]), (70, 120.0, []), (85, None, ["a"])],
)
def test_below_critical_a_model_leaves_only_where_whoever_runs_the_pod_says_so(
    percent: int, threshold: float | None, left: list[str]
) -> None:
    async def scenario() -> None:
        world = small_world(2)
        async with world.pool(memory=MemoryOverrides(idle_threshold=threshold)) as pool:
            await proven(world, pool, model("a"))
            fill(world, percent)
            await asyncio.sleep(115)
            assert loaded(world) == ["a"]
            await asyncio.sleep(10)
            assert loaded(world) == left

    in_virtual_time(scenario())


def test_while_memory_is_low_nobody_leaves() -> None:
    async def scenario() -> None:
        world = small_world(2)
        async with world.pool(memory=MemoryOverrides(idle_threshold=1)) as pool:
            await proven(world, pool, model("a"))
            fill(world, 50)
            await asyncio.sleep(3600)
            assert loaded(world) == ["a"]

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("percent", "memory", "stays", "leaves"),
    [
        (70, MemoryOverrides(), 115, True),
        (85, MemoryOverrides(), 25, True),
        (70, MemoryOverrides(idle_threshold=3600), 300, False),
        (85, MemoryOverrides(cpu_offload=False), 300, False),
    ],
)
def test_on_a_gpu_what_nobody_uses_leaves_for_the_warm_tier_by_itself(
    tmp_path: Path, percent: int, memory: MemoryOverrides, stays: float, *, leaves: bool
) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        world.device.id, world.device.kind = "gpu0", DeviceKind.GPU
        async with world.pool(host=FakeDevice(size=100 * MIB), memory=memory) as pool:
            await proven(world, pool, world.model("a", ResidencySettings()))
            fill(world, percent)
            await asyncio.sleep(stays)
            assert of(pool, "a").residency is Residency.RESIDENT
            await asyncio.sleep(10)
            there = Residency.WARM if leaves else Residency.RESIDENT
            assert of(pool, "a").residency is there

    in_virtual_time(scenario())
