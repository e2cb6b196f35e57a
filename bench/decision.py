"""How long a request waits for the governor: `python -m bench decision`.

A pool of fifty models, each with its engine, of which some fit beside each other. Measured are the
ways that every request takes: the lease of a model that is in memory, until it is given back; the
decision about a reservation, granted and refused; and who would have to leave for a model.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.results import RESULTS, Kept
from tests.support.fake_models import MIB, FakeDevice, World, until, wanted
from ullage_api.conditions import Reason
from ullage_runtime.cli.load.outcome import Spread, spread
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.eviction import Candidate, victims
from ullage_runtime.governor.policy import MemoryOverrides, memory_policy
from ullage_runtime.governor.refusals import MemoryRefusedError
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.clock import SystemClock
from ullage_runtime.models.pool import ModelPool

MODELS: Final = 50
LIMIT: Final = 50e-6
"""Seconds that 99 of 100 decisions may take at most."""
WARM_UP: Final = 200


def timed(rounds: int, work: Callable[[], object]) -> list[float]:
    """Return the seconds of each round, after some to warm up."""
    seconds = []
    for number in range(WARM_UP + rounds):
        began = time.perf_counter()
        work()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return seconds


async def timed_async(rounds: int, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Return the same of work that may wait."""
    seconds = []
    for number in range(WARM_UP + rounds):
        began = time.perf_counter()
        await work()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    return seconds


async def leases(rounds: int) -> list[float]:
    """Return the seconds from asking for a lease to having given it back, on a full pool."""
    world = World(device=FakeDevice(size=(MODELS + 1) * 100 * MIB))
    world.engines.load_seconds = world.engines.step_seconds = 0.0
    pool = ModelPool(
        source=world.source,
        pod_name="ullage-default-0",
        ordinal=0,
        version="0",
        engines=world.engines,
        devices=[world.device],
        clock=SystemClock(),
    )
    async with pool:
        names = [f"model-{number}" for number in range(MODELS)]
        models = [wanted(name, f"file:{name}", uid=name) for name in names]
        await pool.apply(world.document(*models))
        for name in names:
            await until(pool, lambda m: m.reason is Reason.SERVING, name)
        turn = 0

        async def lease() -> None:
            nonlocal turn
            turn += 1
            async with pool.lease(pool.find(names[turn % MODELS]), tenant=f"key-{turn % 7}"):
                pass

        return await timed_async(rounds, lease)


def reservations(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a reservation that is granted, and of one that must wait."""
    governor = Governor(
        [FakeDevice(size=(MODELS + 1) * 100 * MIB)], policy=memory_policy_of_everything()
    )
    footprint = Footprint(weights=100 * MIB)
    for number in range(MODELS):
        governor.reserve(f"model-{number}", footprint)

    def granted() -> None:
        governor.reserve("another", footprint).release()

    def refused() -> None:
        try:
            governor.reserve("another", Footprint(weights=200 * MIB))
        except MemoryRefusedError:
            return
        raise AssertionError("there was no room for that")

    return {"granted": timed(rounds, granted), "refused": timed(rounds, refused)}


def memory_policy_of_everything() -> Any:
    """Return the policy that gives models all there is."""
    document = World().document(percent=100)
    return memory_policy(document.settings, MemoryOverrides())


def evictions(rounds: int) -> list[float]:
    """Return the seconds it takes to choose who leaves for three models' worth of memory."""
    candidates = [
        Candidate(
            name=f"model-{number}",
            bytes=(50 + 13 * number % 97) * MIB,
            priority=number % 3,
            idle_seconds=10.0 + 7 * number % 31,
            reload_seconds=1.0,
        )
        for number in range(MODELS)
    ]
    return timed(rounds, lambda: victims(candidates, 300 * MIB, 5))


def microseconds(found: Spread) -> dict[str, float]:
    """Return how times are spread, in microseconds."""
    values = {"p50": found.p50, "p95": found.p95, "p99": found.p99}
    return {name: round(1e6 * (value or 0.0), 2) for name, value in values.items()}


def main(
    rounds: Annotated[int, typer.Option(min=100, help="Decisions of each kind.")] = 20_000,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure what the governor costs each request."""
    kept = Kept("decision", machine.described(), out)
    found = {
        "a lease, taken and given back": asyncio.run(leases(rounds)),
        **{f"a reservation, {name}": took for name, took in reservations(rounds).items()},
        "who leaves for a model": evictions(rounds),
    }
    spreads = {name: spread(seconds) for name, seconds in found.items()}
    kept.write(
        {
            "models": MODELS,
            "rounds": rounds,
            "microseconds": {name: microseconds(each) for name, each in spreads.items()},
            "holds": all((each.p99 or 0.0) <= LIMIT for each in spreads.values()),
        }
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("DECISION", "p50", "p95", "p99"):
        table.add_column(name, justify="left" if name == "DECISION" else "right")
    for name, each in spreads.items():
        table.add_row(name, *(f"{value:.1f} us" for value in microseconds(each).values()))
    console.print(table)
    kept.tell(console)
