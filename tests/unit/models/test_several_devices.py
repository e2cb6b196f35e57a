"""A pod with several GPUs: where models go, who leaves for whom, and what is told; virtual time."""

import asyncio
from collections.abc import Sequence

from tests.support.fake_models import MIB, FakeDevice, World, answer, until
from tests.support.virtual_time import in_virtual_time
from tests.unit.models.test_residency import loaded, model, of, proven
from ullage_api.conditions import Reason
from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.core.decisions import Rule
from ullage_runtime.core.domain import Footprint
from ullage_runtime.models.pool import ModelPool


class Gpu(FakeDevice):
    """A GPU that knows no processes, as in a container."""

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:
        return estimated


class Gpus(World):
    """A pod with GPUs of these sizes, in MiB, all of which models may have."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.gpus = [
            Gpu(size=size * MIB, id=f"gpu{n}", kind=DeviceKind.GPU, name="GPU", cuda_name=str(n))
            for n, size in enumerate(sizes)
        ]

    @property
    def loaded_into(self) -> Sequence[FakeDevice]:
        return self.gpus

    def several(self) -> ModelPool:
        return self.pool(host=self.device)

    def needs(self, name: str, mib: int, among: int = 1) -> None:
        self.engines.footprints[f"file:{name}"] = Footprint(weights=mib * MIB, among=among)

    @staticmethod
    def accounts(pool: ModelPool) -> list[int]:
        """Return what each GPU's account has, in MiB."""
        devices = pool.report().devices
        return [d.ledger_bytes // MIB for d in devices if d.kind is DeviceKind.GPU]

    def sees(self, name: str) -> str:
        """Return the GPUs that a loaded model's engine sees."""
        (found,) = [e.gpus for e in self.engines.alive if e.is_loaded and e.path == f"file:{name}"]
        return found


def test_each_model_is_on_the_tightest_gpu_that_holds_it_and_its_engine_sees_no_other() -> None:
    async def scenario() -> None:
        world = Gpus(1000, 400, 600)
        world.needs("small", 300)
        world.needs("middle", 500)
        world.needs("large", 900)
        async with world.several() as pool:
            await proven(world, pool, model("small"), model("middle"), model("large"))
            assert world.accounts(pool) == [900, 300, 500]
            assert [world.sees(n) for n in ("small", "middle", "large")] == ["1", "2", "0"]
            assert len(world.engines.alive) == 3, "those that estimated have ended"

    in_virtual_time(scenario())


def test_for_a_model_only_those_leave_that_are_on_its_device() -> None:
    async def scenario() -> None:
        world = Gpus(1000, 600)
        world.needs("a", 900)
        world.needs("b", 550)
        world.needs("c", 500)
        async with world.several() as pool:
            await proven(world, pool, model("a"), model("b"))
            await asyncio.sleep(60)
            await pool.apply(world.document(model("a"), model("b"), model("c")))
            await until(pool, lambda m: m.reason is Reason.SERVING, "c")
            assert loaded(world) == ["a", "c"], "fewer bytes are lost with b"
            assert world.accounts(pool) == [900, 500]
            assert world.sees("c") == "1"
            (gone,) = [d for d in pool.decisions() if not d.is_refusal]
            assert (gone.model, gone.beneficiary, gone.bytes) == ("b", "c", 550 * MIB)
            assert len(await answer(pool, "b")) == 10, "who asks is answered"
            assert world.accounts(pool) == [550, 500], "c has only just come, and stays a while"

    in_virtual_time(scenario())


def test_a_model_that_is_divided_is_charged_on_each_of_its_devices_and_leaves_them_all() -> None:
    async def scenario() -> None:
        world = Gpus(1000, 1000, 1000)
        world.needs("alone", 600)
        world.needs("divided", 700, among=2)
        async with world.several() as pool:
            await proven(world, pool, model("alone"), model("divided"))
            assert world.accounts(pool) == [600, 700, 700]
            assert world.sees("divided") == "1,2"
            active = of(pool, "divided").active
            assert active is not None
            assert (active.resident_bytes, active.estimated_bytes) == (1400 * MIB, 1400 * MIB)
            await pool.apply(world.document(model("alone")))
            await asyncio.sleep(5)
            assert world.accounts(pool) == [600, 0, 0]

    in_virtual_time(scenario())


def test_whoever_divides_a_model_among_more_devices_than_there_are_is_told() -> None:
    async def scenario() -> None:
        world = Gpus(1000, 1000)
        world.needs("a", 900)
        world.needs("wide", 10, among=3)
        world.needs("giant", 1001)
        async with world.several() as pool:
            await proven(world, pool, model("a"))
            await pool.apply(world.document(model("a"), model("wide"), model("giant")))
            for name in ("wide", "giant"):
                await until(pool, lambda m: m.reason is Reason.WILL_NEVER_FIT, name)
            assert "among 3 devices by engine.tensorParallel, and this pod has 2" in (
                of(pool, "wide").message
            )
            assert "budget is 1000.0 MiB" in of(pool, "giant").message
            assert loaded(world) == ["a"]

    in_virtual_time(scenario())


def test_a_full_gpu_sends_away_its_own_idle_models_and_nobody_elses() -> None:
    async def scenario() -> None:
        world = Gpus(1000, 1000)
        world.needs("a", 600)
        world.needs("b", 600)
        async with world.several() as pool:
            await proven(world, pool, model("a"), model("b"))
            await asyncio.sleep(30)
            world.gpus[0].used = 950 * MIB  # neighbours
            await asyncio.sleep(10)
            assert loaded(world) == ["b"]
            assert pool.decisions()[0].rule is Rule.LEVEL

    in_virtual_time(scenario())
