"""What is kept of models that have left: for how long, of what bytes, and who has it first."""

import asyncio
from pathlib import Path

import pytest

from tests.support.fake_models import MIB, FakeDevice, World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from tests.support.workers import open_files
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencyPolicy, ResidencySettings, WarmTier
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import DeviceKind, ReportedModel
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import LoadError
from ullage_runtime.governor.policy import MemoryOverrides
from ullage_runtime.models.pool import ModelPool

WEIGHTS = 4 * MIB
SAVED = b"what was computed of frequent prompts"
IDLE = ResidencySettings(idle_seconds=60)


class WarmWorld(World):
    """One whose engines map real files, of 4 MiB, and have something to save."""

    def __init__(self, folder: Path, mib: int = 1000) -> None:
        super().__init__()
        self.folder = folder
        self.device.size = mib * MIB
        self.engines.maps_files = True
        self.engines.saved = SAVED

    def model(
        self, name: str, residency: ResidencySettings = IDLE, **fields: object
    ) -> DesiredModel:
        path = self.folder / name
        path.write_bytes(bytes([len(name)]) * WEIGHTS)
        return wanted(name, str(path), uid=name, residency=residency, **fields)  # type: ignore[arg-type]

    def loaded_from(self) -> str:
        spec = self.engines.made[-1].spec
        assert spec is not None
        return spec.path


def ledger(pool: ModelPool, device: int = 0) -> tuple[int, int]:
    reported = pool.report().devices[device]
    return reported.ledger_bytes, reported.warm_bytes


def of(pool: ModelPool, name: str) -> ReportedModel:
    model = pool.report().model(name)
    assert model is not None
    return model


async def proven(world: World, pool: ModelPool, *models: DesiredModel) -> None:
    await pool.apply(world.document(*models))
    for one in models:
        await until(pool, lambda m: m.reason is Reason.SERVING, one.name)


async def warm(pool: ModelPool, name: str = "a") -> ReportedModel:
    return await until(pool, lambda m: m.residency is Residency.WARM, name)


def test_an_idle_model_becomes_warm_and_comes_back_from_what_was_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        files = open_files()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            left = await warm(pool)
            kept = WEIGHTS + len(SAVED)
            assert (left.reason, left.host_bytes) == (Reason.WARM, kept)
            assert "4.0 MiB in host memory" in left.message
            assert left.last_eviction is not None
            assert left.last_eviction.rule == "Idle"
            assert ledger(pool) == (kept, kept)
            (decision,) = pool.decisions()
            assert "residency.idleSeconds" in decision.message
            assert len(await answer(pool, "a")) == 10
            back = of(pool, "a")
            assert (back.residency, back.host_bytes) == (Residency.RESIDENT, 0)
            assert back.active is not None
            assert back.active.promote_seconds == 1.0
            assert world.loaded_from().startswith("/proc/")
            spec = world.engines.made[-1].spec
            assert spec is not None
            assert spec.prefixes.startswith("/proc/")
            assert ledger(pool) == (90 * MIB, 0)
            assert open_files() == files
            await warm(pool)
        assert ledger(pool) == (0, 0)
        assert open_files() == files

    in_virtual_time(scenario())


def test_what_is_warm_goes_to_the_disk_after_unload_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        both = ResidencySettings(idle_seconds=60, unload_seconds=300)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a", both))
            await warm(pool)
            await asyncio.sleep(200)
            assert of(pool, "a").residency is Residency.WARM
            cold = await until(pool, lambda m: m.residency is Residency.DISK, "a")
            assert cold.reason is Reason.IDLE
            assert ledger(pool) == (0, 0)
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from() == str(tmp_path / "a")

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    "residency",
    [
        ResidencySettings(unload_seconds=60),
        ResidencySettings(idle_seconds=60, warm_tier=WarmTier.DISABLED),
    ],
)
def test_without_the_tier_a_model_leaves_for_the_disk(
    tmp_path: Path, residency: ResidencySettings
) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a", residency))
            await until(pool, lambda m: m.residency is Residency.DISK, "a")
            await asyncio.sleep(60)
            assert of(pool, "a").residency is Residency.DISK
            assert ledger(pool) == (0, 0)

    in_virtual_time(scenario())


def test_the_tier_can_be_switched_off_for_a_whole_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        async with world.pool(memory=MemoryOverrides(cpu_offload=False)) as pool:
            await proven(world, pool, world.model("a"))
            await until(pool, lambda m: m.residency is Residency.DISK, "a")
            await asyncio.sleep(60)
            assert (of(pool, "a").residency, ledger(pool)) == (Residency.DISK, (0, 0))

    in_virtual_time(scenario())


def test_what_is_warm_makes_room_before_any_model_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        # Two models of 90 MiB fit, and what is kept of a third does not fit beside them.
        world = WarmWorld(tmp_path, 182)
        world.engines.footprint = type(world.engines.footprint)(weights=90 * MIB)
        stays = ResidencySettings()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"), world.model("b", stays))
            await warm(pool)
            await pool.apply(
                world.document(world.model("a"), world.model("b", stays), world.model("c", stays))
            )
            await until(pool, lambda m: m.reason is Reason.SERVING, "c")
            assert of(pool, "b").residency is Residency.RESIDENT
            assert (of(pool, "a").residency, of(pool, "a").reason) == (
                Residency.DISK,
                Reason.IDLE,
            )
            assert ledger(pool) == (180 * MIB, 0)

    in_virtual_time(scenario())


def test_a_model_that_fits_only_with_its_own_bytes_takes_them_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path, 182)
        world.engines.footprint = type(world.engines.footprint)(weights=90 * MIB)
        world.engines.saved = b""
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"), world.model("b", ResidencySettings()))
            await warm(pool)
            assert ledger(pool) == (94 * MIB, 4 * MIB)
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from().startswith("/proc/")
            assert ledger(pool) == (180 * MIB, 0)

    in_virtual_time(scenario())


def test_an_evicted_model_is_kept_once_nobody_waits_for_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path, 100)
        on_demand = ResidencySettings()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a", on_demand))
            await pool.apply(
                world.document(world.model("a", on_demand), world.model("b", on_demand))
            )
            await until(pool, lambda m: m.reason is Reason.SERVING, "b")
            assert of(pool, "a").residency is not Residency.RESIDENT
            await warm(pool)
            assert ledger(pool) == (94 * MIB, 4 * MIB), "prefixes were in the way"
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from().startswith("/proc/")
            await warm(pool, "b")

    in_virtual_time(scenario())


def test_short_host_memory_empties_the_tier_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"), world.model("b", ResidencySettings()))
            await warm(pool)
            world.device.stalled = 0.3
            await until(pool, lambda m: m.residency is Residency.DISK, "a")
            assert ledger(pool) == (90 * MIB, 0)
            assert of(pool, "b").residency is Residency.RESIDENT
            world.device.stalled, world.device.used = None, 850 * MIB
            assert len(await answer(pool, "a")) == 10
            await until(pool, lambda m: m.reason is Reason.IDLE, "a")
            await asyncio.sleep(60)
            assert ledger(pool) == (90 * MIB, 0), "High keeps nothing"

    in_virtual_time(scenario())


def test_beside_a_gpu_the_copy_stays_while_the_model_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        world.device.id, world.device.kind = "gpu0", DeviceKind.GPU
        host = FakeDevice(size=100 * MIB)
        async with world.pool(host=host) as pool:
            await proven(world, pool, world.model("a"))
            await warm(pool)
            assert (ledger(pool), ledger(pool, 1)) == ((0, 0), (4 * MIB + len(SAVED),) * 2)
            assert len(await answer(pool, "a")) == 10
            assert (ledger(pool)[0], ledger(pool, 1)) == (90 * MIB, (4 * MIB, 4 * MIB))
            assert of(pool, "a").residency is Residency.RESIDENT
            copy = world.loaded_from()
            await warm(pool)
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from() == copy
            host.stalled = 0.3
            await until(pool, lambda m: m.host_bytes == 0, "a")
            assert (of(pool, "a").residency, ledger(pool, 1)) == (Residency.RESIDENT, (0, 0))

    in_virtual_time(scenario())


def test_another_revision_takes_the_place_of_what_is_warm(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        files = open_files()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            await warm(pool)
            changed = world.model("a", generation=2, engine=EngineSettings(context_length=64))
            await proven(world, pool, changed)
            assert world.loaded_from() == str(tmp_path / "a")
            assert ledger(pool) == (90 * MIB, 0)
            assert open_files() == files
            assert (await warm(pool)).host_bytes == WEIGHTS + len(SAVED)

    in_virtual_time(scenario())


def test_a_failed_revision_leaves_what_is_warm_to_the_one_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            await warm(pool)
            bad = world.model("a").model_copy(update={"generation": 2})
            bad = bad.model_copy(
                update={"target": bad.target.model_copy(update={"uri": str(tmp_path / "bad")})}
            )
            error = LoadError(Reason.INVALID_MODEL, "no model", final=True)
            world.engines.load_errors[str(tmp_path / "bad")] = [error]
            await pool.apply(world.document(bad))
            back = await until(pool, lambda m: m.residency is Residency.RESIDENT, "a")
            assert back.active is not None
            assert back.active.promote_seconds is not None

    in_virtual_time(scenario())


def test_a_load_from_a_copy_that_fails_leaves_nothing_and_the_next_is_from_the_file(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        files = open_files()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            await warm(pool)
            world.engines.load_errors[str(tmp_path / "a")] = [
                LoadError(Reason.LOAD_FAILED, "it died", final=False)
            ]
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from() == str(tmp_path / "a")
            assert ledger(pool) == (90 * MIB, 0)
            assert open_files() == files

    in_virtual_time(scenario())


@pytest.mark.parametrize("how", ["suspended", "removed", "disabled"])
def test_what_is_warm_goes_with_the_wish_for_it(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        files = open_files()
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            await warm(pool)
            disabled = ResidencySettings(idle_seconds=60, warm_tier=WarmTier.DISABLED)
            wished = {
                "suspended": [world.model("a", suspended=True)],
                "removed": [],
                "disabled": [world.model("a", disabled)],
            }
            await pool.apply(world.document(*wished[how]))
            await asyncio.sleep(1)
            assert ledger(pool) == (0, 0)
            assert open_files() == files

    in_virtual_time(scenario())


def test_a_file_that_is_in_memory_anyway_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        monkeypatch.setattr("ullage_runtime.models.warm.lies_in_memory", lambda _: True)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            assert (await warm(pool)).host_bytes == len(SAVED)
            assert len(await answer(pool, "a")) == 10
            assert world.loaded_from() == str(tmp_path / "a")
            assert ledger(pool) == (90 * MIB, 0)

    in_virtual_time(scenario())


def test_a_file_that_cannot_be_copied_leaves_the_prefixes(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a"))
            (tmp_path / "a").unlink()
            await until(pool, lambda m: m.residency is Residency.DISK, "a")
            await asyncio.sleep(10)
            assert ledger(pool) == (len(SAVED), len(SAVED))
            assert of(pool, "a").residency is Residency.DISK
            assert len(await answer(pool, "a")) == 10
            spec = world.engines.made[-1].spec
            assert spec is not None
            assert spec.prefixes.startswith("/proc/")

    in_virtual_time(scenario())


def test_a_pinned_model_stays_where_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = WarmWorld(tmp_path)
        pinned = ResidencySettings(policy=ResidencyPolicy.PINNED, idle_seconds=60)
        async with world.pool() as pool:
            await proven(world, pool, world.model("a", pinned))
            await asyncio.sleep(600)
            assert of(pool, "a").residency is Residency.RESIDENT

    in_virtual_time(scenario())
