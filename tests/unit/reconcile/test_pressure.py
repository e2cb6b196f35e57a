"""What status says of memory pressure, and how often it may say something else."""

import itertools
import random
from datetime import timedelta
from typing import Any

import pytest

from tests.support.facts import (
    World,
    condition,
    heard,
    known,
    pod,
    profile,
    report,
    resource,
    serving,
    silent,
)
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.wire.pod_report import DeviceKind, ReportedDevice
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.plan import Plan
from ullage_operator.reconcile.pool import decide_pool

GIB = 1 << 30
LOW, MODERATE, HIGH, CRITICAL = MemoryLevel


def world_of(pods: int = 1, **spec: Any) -> World:
    size = {"replicas": {"min": pods, "max": pods}}
    world = World(profile=known(profile(**size))).add(resource(replicas=pods, **spec))
    world.carry_out(decide_pool(world.pool()))
    for ordinal in range(pods):
        world.pods[ordinal] = pod(ordinal)
        world.reports[ordinal] = heard(report(ordinal=ordinal, document=world.desired))
    world.carry_out(decide_pool(world.pool()))
    return world


def device_at(level: MemoryLevel | None, **facts: Any) -> ReportedDevice:
    return ReportedDevice(
        id=facts.get("id", "host"),
        kind=facts.get("kind", DeviceKind.HOST),
        name=facts.get("name", "memory"),
        total_bytes=facts.get("total_bytes", 8 * GIB),
        budget_bytes=7 * GIB,
        used_bytes=5 * GIB,
        ledger_bytes=4 * GIB,
        level=level,
    )


def at(
    world: World,
    level: MemoryLevel | None,
    ordinal: int = 0,
    age: float = 1.0,
    devices: tuple[ReportedDevice, ...] = (),
) -> World:
    """Have a pod say how full it is."""
    said = report(
        serving(world.members["chat"]),
        ordinal=ordinal,
        document=world.desired,
        level=level,
        devices=devices or (device_at(level),),
    )
    world.reports[ordinal] = heard(said, age)
    return world


def now(world: World, seconds: float = 0) -> Plan:
    world.now += timedelta(seconds=seconds)
    plan = decide_model(world.model())
    world.carry_out(plan, "chat")
    return plan


def shown(world: World) -> tuple[str, str, str | None]:
    status = world.members["chat"].status
    assert status is not None
    assert status.memory is not None
    found = condition(status.to_wire(), "MemoryPressure")
    return found.status, found.reason, status.memory.level


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (LOW, ("False", "MemoryAvailable", "Low")),
        (MODERATE, ("False", "MemoryAvailable", "Moderate")),
        (HIGH, ("True", "MemoryHigh", "High")),
        (CRITICAL, ("True", "MemoryCritical", "Critical")),
    ],
)
def test_the_level_of_the_pod_is_shown_and_ready_stays_true(
    level: MemoryLevel, expected: tuple[str, str, str]
) -> None:
    world = at(world_of(), level)
    plan = now(world)
    assert shown(world) == expected
    assert condition(plan, "Ready").status == "True"
    assert plan.status is not None
    assert plan.status["memory"]["levelSince"] == "2026-11-20T12:00:00Z"


def test_the_fullest_pod_counts_and_is_named() -> None:
    world = at(at(world_of(pods=2), LOW), HIGH, ordinal=1)
    plan = now(world)
    assert shown(world) == ("True", "MemoryHigh", "High")
    message = condition(plan, "MemoryPressure").message
    assert message == "memory of pod ullage-default-1 with 8.0 GiB of memory is at level High"


def test_of_several_gpus_the_fullest_is_named() -> None:
    gpus = (
        device_at(LOW, id="gpu0", kind=DeviceKind.GPU, name="A"),
        device_at(HIGH, id="gpu1", kind=DeviceKind.GPU, name="B", total_bytes=80 * GIB),
    )
    plan = now(at(world_of(), HIGH, devices=(*gpus, device_at(HIGH))))
    message = condition(plan, "MemoryPressure").message
    assert message == "memory of pod ullage-default-0 with 80.0 GiB of B is at level High"


def test_pressure_is_one_warning_and_its_end_one_event() -> None:
    world = at(world_of(), LOW)
    assert [e for e in now(world).events if e.reason.startswith("Memory")] == []
    plan = now(at(world, HIGH), 60)
    assert [(e.reason, e.warning) for e in plan.events] == [("MemoryHigh", True)]
    assert now(at(world, HIGH), 60).is_empty
    plan = now(at(world, CRITICAL), 60)
    assert [(e.reason, e.warning) for e in plan.events] == [("MemoryCritical", True)]
    plan = now(at(world, MODERATE), 60)
    assert [(e.reason, e.warning) for e in plan.events] == [("MemoryAvailable", False)]


def test_reports_that_were_lost_make_it_unknown_and_never_a_false_all_clear() -> None:
    world = at(world_of(), LOW)
    now(world)
    plan = now(at(world, LOW, age=61), 61)
    assert shown(world) == ("Unknown", "ReportsMissing", None)
    assert condition(plan, "Ready").status == "True"
    now(at(world, LOW), 60)
    assert shown(world) == ("False", "MemoryAvailable", "Low")


def test_one_silent_pod_among_several_makes_it_unknown_unless_another_is_short() -> None:
    world = at(world_of(pods=2), LOW)
    world.reports[1] = silent(1)
    now(world)
    assert shown(world)[:2] == ("Unknown", "ReportsMissing")
    now(at(world, HIGH), 60)
    assert shown(world) == ("True", "MemoryHigh", "High")


def test_a_pod_that_cannot_read_its_memory_gives_no_all_clear() -> None:
    world = at(world_of(), None)
    plan = now(world)
    assert shown(world) == ("Unknown", "Pending", None)
    assert "ullage-default-0 cannot say" in condition(plan, "MemoryPressure").message


def test_a_suspended_model_has_no_pressure() -> None:
    world = at(world_of(), HIGH)
    now(world)
    raw = world.members["chat"].to_wire()
    raw["spec"]["suspend"] = True
    world.add(type(world.members["chat"]).model_validate(raw))
    world.carry_out(decide_pool(world.pool()))
    now(world, 60)
    assert shown(world) == ("False", "Suspended", None)


def test_a_change_within_half_a_minute_waits_for_its_time() -> None:
    world = at(world_of(), LOW)
    now(world)
    now(at(world, HIGH), 60)
    plan = now(at(world, LOW), 10)
    assert plan.is_empty
    assert plan.requeue_after == 20
    assert shown(world) == ("True", "MemoryHigh", "High")
    plan = now(world, 20)
    assert shown(world) == ("False", "MemoryAvailable", "Low")
    assert plan.requeue_after is None


def test_a_day_of_a_steady_level_writes_nothing() -> None:
    world = at(world_of(), MODERATE)
    now(world)
    assert all(now(world, 60).is_empty for _ in range(24 * 60))


def test_a_day_of_wavering_levels_keeps_half_a_minute_between_two_writes() -> None:
    world = at(world_of(pods=2), LOW, 1)
    writes: list[float] = []
    choose = random.Random(7)  # noqa: S311 - a seed that can be repeated
    for second in range(0, 24 * 3600, 17):
        at(world, choose.choice(tuple(MemoryLevel)), choose.randrange(2))
        if now(world, 17).status is not None:
            writes.append(second)
    gaps = [b - a for a, b in itertools.pairwise(writes)]
    assert min(gaps) >= 30
    assert len(writes) > 1000
