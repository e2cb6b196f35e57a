"""The governor: who gets memory, what is said, and who is woken."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.support.fake_models import MIB, FakeDevice, FakeEngine, FakeEngines
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import DeviceKind
from ullage_runtime.core.budgets import MemoryPolicy, Share
from ullage_runtime.core.domain import EngineStats, Footprint
from ullage_runtime.core.ledger import EntryState
from ullage_runtime.governor.monitor import STALE_SECONDS
from ullage_runtime.governor.policy import MemoryOverrides, memory_policy
from ullage_runtime.governor.refusals import MemoryRefusedError
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.governor.service import Governor


def share(most: float) -> MemoryPolicy:
    return MemoryPolicy(models=Share(most, 0))


def footprint(mib: int) -> Footprint:
    return Footprint(weights=mib * MIB)


def test_the_budget_is_a_share_of_the_device() -> None:
    async def scenario() -> None:
        governor = Governor([FakeDevice()], policy=share(0.5), registry=CollectorRegistry())
        (device,) = governor.report()
        assert (device.total_bytes, device.budget_bytes) == (1000 * MIB, 500 * MIB)

    in_virtual_time(scenario())


def test_a_refusal_says_what_is_needed_and_what_there_is() -> None:
    async def scenario() -> None:
        governor = Governor([FakeDevice()], policy=share(1.0))
        reservation = governor.reserve("a", footprint(800))
        with pytest.raises(MemoryRefusedError) as later:
            governor.reserve("b", footprint(300))
        assert (later.value.reason, later.value.final) == (Reason.WAITING_FOR_MEMORY, False)
        assert "needs 300.0 MiB" in later.value.message
        assert "200.0 MiB of the pool's budget of 1000.0 MiB are free" in later.value.message
        with pytest.raises(MemoryRefusedError) as never:
            governor.reserve("c", footprint(1001))
        assert (never.value.reason, never.value.final) == (Reason.WILL_NEVER_FIT, True)
        reservation.release()

    in_virtual_time(scenario())


def test_what_the_ledger_accounts_for_is_a_metric() -> None:
    async def scenario() -> None:
        registry, device = CollectorRegistry(), FakeDevice()
        governor = Governor([device], policy=share(1.0), registry=registry)

        def told() -> dict[EntryState, float | None]:
            return {
                state: registry.get_sample_value(
                    "ullage_ledger_bytes", {"device": device.id, "state": state.value}
                )
                for state in EntryState
            }

        nothing = dict.fromkeys(EntryState, 0)
        assert told() == nothing
        reservation = governor.reserve("a", footprint(800))
        assert told() == nothing | {EntryState.RESERVED: 800 * MIB}
        reservation.releasing()
        assert told() == nothing | {EntryState.RELEASING: 800 * MIB}
        reservation.release()
        assert told() == nothing

    in_virtual_time(scenario())


def test_a_release_wakes_who_waits_and_happens_once() -> None:
    async def scenario() -> None:
        governor = Governor([FakeDevice()], policy=share(1.0))
        reservation = governor.reserve("a", footprint(800))
        since = governor.releases
        waiting = asyncio.create_task(governor.released_since(since))
        await asyncio.sleep(1)
        assert not waiting.done()
        reservation.releasing()
        reservation.releasing()
        reservation.release()
        reservation.release()
        await asyncio.wait_for(waiting, 1)
        assert governor.releases == since + 1
        assert governor.report()[0].ledger_bytes == 0

    in_virtual_time(scenario())


def test_a_late_measurement_does_not_revive_what_was_released() -> None:
    async def scenario() -> None:
        governor = Governor([FakeDevice()], policy=share(1.0))
        reservation = governor.reserve("a", footprint(800))
        engine = await FakeEngines()("path")
        assert await reservation.measure(engine) == 90 * MIB
        reservation.releasing()
        assert await reservation.measure(engine) == 90 * MIB
        reservation.release()
        await reservation.measure(engine)
        assert governor.report()[0].ledger_bytes == 0

    in_virtual_time(scenario())


class _SteadyEngine(FakeEngine):
    async def stats(self) -> EngineStats:
        return EngineStats(resident_bytes=50 * MIB)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("rmbl"), st.integers(0, 5)), max_size=40))
def test_any_order_of_calls_ends_with_an_empty_ledger(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        governor = Governor([FakeDevice()], policy=share(1.0))
        engine = _SteadyEngine(FakeEngines(), "path", 1)
        held: dict[int, Reservation] = {}
        for number, (step, who) in enumerate(steps):
            reservation = held.get(who)
            if step == "r" and reservation is None:
                try:
                    held[who] = governor.reserve(f"{who}#{number}", footprint(300))
                except MemoryRefusedError as refused:
                    assert not refused.final  # noqa: PT017 - the refusal is one of two outcomes
            elif reservation is not None and step == "m":
                await reservation.measure(engine)
            elif reservation is not None and step == "b":
                reservation.releasing()
            elif reservation is not None and step == "l":
                held.pop(who).release()
                reservation.release()
        assert governor.report()[0].ledger_bytes == sum(r.bytes for r in held.values())
        for reservation in held.values():
            reservation.release()
        assert governor.report()[0].ledger_bytes == 0

    in_virtual_time(scenario())


def host(used: int) -> FakeDevice:
    return FakeDevice(used=used * MIB, own=used * MIB)


def test_a_reading_becomes_a_level_and_is_reported() -> None:
    async def scenario() -> None:
        device = host(850)
        governor = Governor([device], policy=share(1.0))
        assert governor.level is None
        await governor.sample(0)
        assert governor.level is MemoryLevel.HIGH
        (reported,) = governor.report()
        assert (reported.used_bytes, reported.own_bytes) == (850 * MIB, 850 * MIB)
        assert reported.level is MemoryLevel.HIGH
        device.used = 100 * MIB
        await governor.sample(2)
        assert governor.level is MemoryLevel.HIGH
        await governor.sample(12)
        assert governor.level is MemoryLevel.LOW

    in_virtual_time(scenario())


def test_a_device_that_cannot_be_read_keeps_its_level_a_while_and_then_has_none() -> None:
    async def scenario() -> None:
        device = host(850)
        governor = Governor([device], policy=share(1.0))
        await governor.sample(0)
        device.broken = True
        await governor.sample(STALE_SECONDS - 1)
        assert governor.level is MemoryLevel.HIGH
        await governor.sample(STALE_SECONDS)
        assert governor.level is None
        assert governor.report()[0].used_bytes == 0
        device.broken = False
        await governor.sample(STALE_SECONDS + 2)
        assert governor.level is MemoryLevel.HIGH

    in_virtual_time(scenario())


def test_a_limit_that_is_raised_raises_the_budget_and_wakes_who_waits() -> None:
    async def scenario() -> None:
        device = host(0)
        governor = Governor([device], policy=share(0.5))
        waiting = asyncio.create_task(governor.released_since(governor.releases))
        await governor.sample(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        device.size = 4000 * MIB
        await governor.sample(2)
        await asyncio.wait_for(waiting, 1)
        assert governor.report()[0].budget_bytes == 2000 * MIB

    in_virtual_time(scenario())


def test_beside_a_gpu_the_hosts_memory_has_a_budget_of_its_own() -> None:
    async def scenario() -> None:
        gpu = FakeDevice(id="gpu0", kind=DeviceKind.GPU)
        policy = MemoryPolicy(models=Share(0.9, 0.2), host=Share(0.5, 0.2))
        budgets = [d.budget_bytes for d in Governor([gpu, FakeDevice()], policy=policy).report()]
        assert budgets == [800 * MIB, 500 * MIB]

    in_virtual_time(scenario())


def test_what_a_process_was_started_with_stands_above_the_pools_settings() -> None:
    pool = RuntimeSettings(memory_max_percent=80, memory_reserve_percent=5)
    assert memory_policy(pool, MemoryOverrides()).models == Share(0.8, 0.05)
    overridden = memory_policy(pool, MemoryOverrides(gpu_max=0.3, cpu_reserve=0.4))
    assert overridden.models == Share(0.3, 0.05)
    assert overridden.host == Share(0.5, 0.4)


def test_neighbours_bytes_are_promised_to_nobody_and_come_back_when_they_leave() -> None:
    async def scenario() -> None:
        device = FakeDevice(used=600 * MIB, own=0)
        governor = Governor([device], policy=share(0.9))
        governor.check(footprint(900))
        assert governor.free == 900 * MIB, "nobody has read the device yet"
        await governor.sample(0)
        assert governor.free == 380 * MIB
        reservation = governor.reserve("a", footprint(300))
        with pytest.raises(MemoryRefusedError) as refused:
            governor.reserve("b", footprint(100))
        assert (refused.value.reason, refused.value.final) == (Reason.WAITING_FOR_MEMORY, False)
        assert refused.value.free == 80 * MIB
        assert (
            "80.0 MiB of the pool's budget of 900.0 MiB are free beside neighbours, "
            "who take 520.0 MiB of it" in refused.value.message
        )
        governor.check(footprint(900))
        releases = governor.releases
        waiting = asyncio.create_task(governor.released_since(releases))
        # The model is there now, and no neighbour of itself.
        device.used, device.own = 900 * MIB, 300 * MIB
        await governor.sample(2)
        assert governor.free == 80 * MIB
        assert governor.releases == releases
        device.used = 700 * MIB
        await governor.sample(4)
        assert governor.releases == releases + 1
        await waiting
        governor.reserve("b", footprint(100)).release()
        reservation.release()

    in_virtual_time(scenario())


def test_where_the_driver_knows_no_processes_what_the_ledger_has_is_no_neighbour() -> None:
    async def scenario() -> None:
        device = FakeDevice()
        governor = Governor([device], policy=share(0.9))
        reservation = governor.reserve("a", footprint(300))
        device.used = 290 * MIB
        await governor.sample(0)
        assert governor.free == 600 * MIB
        device.used = 800 * MIB
        await governor.sample(2)
        assert governor.free == 180 * MIB
        # The reading is old by now, and says nothing of what has left since.
        reservation.release()
        assert governor.free == 480 * MIB
        with pytest.raises(MemoryRefusedError):
            governor.reserve("b", footprint(500))

    in_virtual_time(scenario())


def test_a_device_that_nobody_can_read_for_long_is_believed_to_have_no_neighbours() -> None:
    async def scenario() -> None:
        device = FakeDevice(used=600 * MIB, own=0)
        governor = Governor([device], policy=share(0.9))
        await governor.sample(0)
        device.broken = True
        await governor.sample(STALE_SECONDS / 2)
        assert governor.free == 380 * MIB
        await governor.sample(STALE_SECONDS + 1)
        assert governor.free == 900 * MIB

    in_virtual_time(scenario())


def test_a_driver_that_repeats_its_numbers_after_a_model_left_is_believed_no_more() -> None:
    async def scenario() -> None:
        device = FakeDevice(used=700 * MIB)
        governor = Governor([device], policy=share(0.9))
        reservation = governor.reserve("a", footprint(600))
        governor.commit("a", 600 * MIB)
        await governor.sample(0)
        assert governor.free == 280 * MIB, "a neighbour has 100 MiB"
        reservation.release()
        await governor.sample(2)
        with pytest.raises(MemoryRefusedError):
            governor.reserve("b", footprint(600))
        await governor.sample(STALE_SECONDS)
        assert governor.level is None
        governor.reserve("b", footprint(600)).release()
        device.used = 100 * MIB
        await governor.sample(STALE_SECONDS + 2)
        assert governor.level is MemoryLevel.LOW
        assert governor.free == 880 * MIB

    in_virtual_time(scenario())


def test_numbers_that_stand_still_while_nothing_comes_or_goes_are_believed() -> None:
    async def scenario() -> None:
        device = FakeDevice(used=850 * MIB)
        governor = Governor([device], policy=share(0.9))
        governor.reserve("a", footprint(600))
        governor.commit("a", 600 * MIB)
        for moment in range(0, 200, 2):
            governor.commit("a", (600 + moment % 7) * MIB)
            await governor.sample(moment)
        assert governor.level is MemoryLevel.HIGH

    in_virtual_time(scenario())


def test_what_is_kept_warm_is_the_hosts_and_limited_to_its_share() -> None:
    async def scenario() -> None:
        gpu = FakeDevice(id="gpu0", kind=DeviceKind.GPU)
        memory = FakeDevice(used=100 * MIB, own=100 * MIB)
        governor = Governor([gpu, memory], policy=MemoryPolicy(host=Share(0.5, 0.2)))
        assert not governor.loads_into_host
        kept = governor.reserve_warm("a (warm)", 400 * MIB)
        assert kept is not None
        kept.settle(300 * MIB)
        assert governor.reserve_warm("b (warm)", 201 * MIB) is None
        await governor.sample(0)
        on_gpu, on_host = governor.report()
        assert (on_gpu.ledger_bytes, on_gpu.warm_bytes) == (0, 0)
        assert (on_host.ledger_bytes, on_host.warm_bytes) == (300 * MIB, 300 * MIB)
        assert (on_host.used_bytes, on_host.own_bytes) == (400 * MIB, 400 * MIB)
        kept.release()
        kept.release()
        kept.settle(1)
        assert governor.report()[1].ledger_bytes == 0

    in_virtual_time(scenario())


def test_a_load_takes_over_what_is_kept_of_it_in_the_same_memory() -> None:
    async def scenario() -> None:
        governor = Governor(
            [FakeDevice()], policy=MemoryPolicy(models=Share(1.0, 0), host=Share(0.5, 0))
        )
        assert governor.loads_into_host
        kept = governor.reserve_warm("a (warm)", 300 * MIB)
        assert kept is not None
        kept.settle(300 * MIB)
        other = governor.reserve("b", footprint(500))
        with pytest.raises(MemoryRefusedError) as refused:
            governor.reserve("a", footprint(400))
        assert refused.value.free == 200 * MIB
        load = governor.reserve("a", footprint(400), instead_of=kept.owner)
        kept.hand_over()
        kept.release()
        assert governor.report()[0].ledger_bytes == 900 * MIB
        load.release()
        other.release()
        assert governor.report()[0].ledger_bytes == 0

    in_virtual_time(scenario())


def test_nothing_is_kept_while_the_hosts_memory_is_short_or_waited_for() -> None:
    async def scenario() -> None:
        memory = host(100)
        governor = Governor([memory], policy=share(1.0))
        await governor.sample(0)
        assert not governor.host_is_short
        memory.stalled = 0.5
        await governor.sample(2)
        assert governor.host_is_short
        assert governor.reserve_warm("a (warm)", 1) is None
        memory.stalled = None
        memory.used = memory.own = 850 * MIB
        await governor.sample(4)
        assert governor.host_is_short
        assert Governor([FakeDevice(kind=DeviceKind.GPU)]).reserve_warm("a (warm)", 1) is None

    in_virtual_time(scenario())
