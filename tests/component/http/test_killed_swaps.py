"""Whoever is killed at whatever step of a swap: nothing is lost that need not be.

One seed for each step and victim; `make soak` plays twenty.
"""

import asyncio
import json
import os
import pathlib
import random
import signal
import sys
import time
from dataclasses import replace

import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.processes import environment
from tests.support.swaps import (
    ENDS,
    EVERY_STEP,
    PATIENCE,
    STREAMS,
    Listeners,
    document,
    pool_with,
    serving,
    settled,
    until,
    write_pair,
)
from tests.support.workers import checked_ledger, workers
from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import SwapStep, Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.swap import Mark, SwapEnd
from ullage_runtime.models.journal import FileJournal

SEEDS = range(1, 1 + int(os.environ.get("ULLAGE_SOAK_SEEDS", "1")))
STEPS = [*SwapStep, SwapEnd.COMMITTED]
LARGE = Shape(width=512, layers=24, heads=8, feed_forward=1408, context=4096)
HEARD = 20
"""Streams that are complete before a swap, and that must come to their end after it."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_pair(tmp_path)
    return tmp_path


class Killer(FileJournal):
    """A journal that has a worker killed a moment after a step was noted, once."""

    def __init__(self, path: pathlib.Path, mark: Mark, victim: int, delay: float) -> None:
        super().__init__(path, time.time)
        self._mark, self._victim, self._delay = mark, victim, delay
        self.armed = False
        self.killed = False

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        await super().note(model, mark, want, detail)
        if self.armed and mark is self._mark:
            self.armed = False
            asyncio.get_running_loop().call_later(self._delay, self._kill)

    def _kill(self) -> None:
        alive = workers()
        if len(alive) > self._victim:
            alive[self._victim].send_signal(signal.SIGKILL)
            self.killed = True


def is_over(model: ReportedModel) -> bool:
    """Whether a swap is, and something answers."""
    ends = {Transition.UP_TO_DATE, Transition.ROLLED_BACK}
    is_quiet = model.swap is not None and model.swap.step is None
    return is_quiet and model.transition in ends and model.active is not None


CASES = [
    pytest.param(step, victim, seed, id=f"{step.value}-{who}-{seed}")
    for seed in SEEDS
    for step in SwapStep
    for victim, who in ((0, "old"), (1, "new"))
    # Nothing of the new one is there before, and nothing of the old one once it has drained.
    if not (step in {SwapStep.FETCHING, SwapStep.DRAINING} and victim == 1)
]


@pytest.mark.parametrize(("step", "victim", "seed"), CASES)
async def test_a_worker_killed_at_a_step_of_a_swap_under_fifty_streams(
    folder: pathlib.Path, step: SwapStep, victim: int, seed: int
) -> None:
    chance = random.Random(f"{step}{victim}{seed}")  # noqa: S311 - the same moment every time
    delay = chance.random() * (0.6 if step is SwapStep.LOADING else 0.05)
    journal = Killer(folder / "state" / "swaps.sqlite", step, victim, delay)
    strategy = "DrainThenLoad" if step is SwapStep.DRAINING else "Auto"
    pool = pool_with(journal)
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        async with Listeners(runtime.url) as listeners:
            await listeners.heard(HEARD)
            journal.armed = True
            await pool.apply(document(folder, "beta", 2, strategy=strategy, **EVERY_STEP))
            done = await until(pool, is_over)
            await listeners.heard(HEARD)
        assert listeners.mixed == []
        # Only streams that had begun on the one that was killed may fail, and they do so once.
        assert len(listeners.failed) <= STREAMS
        assert all("engine_failed" in failure for failure in listeners.failed)
        assert done.active is not None
        name = "alpha" if done.transition and done.transition.value == "RolledBack" else "beta"
        assert done.active.uri.endswith(f"{name}.gguf")
        if victim == 1 and step in {SwapStep.LOADING, SwapStep.CHECKING}:
            assert listeners.failed == [], "nobody was on it yet"
        committed = (await journal.recall("uid-chat")).committed
        assert committed is not None
        assert committed.want.uri.endswith(f"{name}.gguf")
        await until(pool, lambda _: len(workers()) == 1)
        await checked_ledger(pool)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mark", STEPS, ids=lambda mark: mark.value)
async def test_a_runtime_killed_at_a_step_of_a_swap_begins_with_what_was_committed(
    folder: pathlib.Path, mark: Mark, seed: int
) -> None:
    # The first seed kills before the step is taken, others while it is.
    delay = 0.0 if seed == 1 else random.Random(f"{mark}{seed}").random() * 0.2  # noqa: S311
    await killed(folder, mark.value, delay)
    await begins_with("beta" if mark is SwapEnd.COMMITTED else "alpha", folder)


async def killed(folder: pathlib.Path, mark: str, delay: float) -> None:
    """Have a runtime that is listened to kill itself in a swap."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.killed_runtime",
        str(folder),
        mark,
        str(delay),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[3],
        env=environment(folder),
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        while not line.startswith(b'{"url"'):
            assert line, "it ended before it served"
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        async with Listeners(json.loads(line)["url"]) as listeners:
            await listeners.heard(HEARD)
            process.stdin.write(b"\n")
            reading = asyncio.create_task(process.stdout.read())
            assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL
            await reading
        assert listeners.mixed == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()


async def begins_with(name: str, folder: pathlib.Path) -> None:
    """Have a new process take up what the killed one left, and see it through."""
    journal = FileJournal(folder / "state" / "swaps.sqlite", time.time)
    pool = pool_with(journal)
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "beta", 2, watchSeconds=1))
        first = await until(pool, lambda m: m.active is not None)
        assert first.active is not None
        assert first.active.uri.endswith(f"{name}.gguf")
        async with Listeners(runtime.url, count=8) as listeners:
            await settled(pool, "beta")
            await listeners.heard(8)
        assert listeners.failed == listeners.mixed == []
        await until(pool, lambda _: len(workers()) == 1)
        await checked_ledger(pool)


class Watched(FileJournal):
    """A journal that knows which steps it was told of."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path, time.time)
        self.noted: list[Mark] = []

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        await super().note(model, mark, want, detail)
        self.noted.append(mark)


@pytest.mark.parametrize(
    ("mark", "transition", "reason"),
    [
        ("KeptBlocked", Transition.BLOCKED_BY_FAILED_LOAD, Reason.VALIDATION_FAILED),
        ("KeptRolledBack", Transition.ROLLED_BACK, Reason.ROLLED_BACK),
    ],
)
async def test_what_came_to_nothing_is_not_tried_again_by_a_runtime_that_was_killed_since(
    folder: pathlib.Path, mark: str, transition: Transition, reason: Reason
) -> None:
    await killed(folder, mark, 0.0)
    journal = Watched(folder / "state" / "swaps.sqlite")
    pool = pool_with(journal)
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "beta", 2, **ENDS[mark]))
        back = await until(pool, lambda m: m.active is not None and m.final)
        assert (back.transition, back.reason) == (transition, reason)
        assert back.active is not None
        assert back.active.uri.endswith("alpha.gguf")
        assert back.target is not None
        assert back.target.uri.endswith("beta.gguf")
        assert back.swap is not None
        assert (back.swap.previous, back.swap.step) == (back.active.revision, None)
        async with Listeners(runtime.url, count=8) as listeners:
            await listeners.heard(40)
        assert listeners.texts["beta"] == 0
        assert listeners.failed == listeners.mixed == []
        assert journal.noted == [], "nothing was tried"
        await until(pool, lambda _: len(workers()) == 1)
        await checked_ledger(pool)
        await pool.apply(document(folder, "beta", 3))
        await settled(pool, "beta")


@pytest.mark.parametrize("step", [SwapStep.LOADING, SwapStep.WATCHING])
async def test_after_the_death_of_a_large_model_the_ledger_is_off_by_a_few_percent(
    tmp_path: pathlib.Path, step: SwapStep
) -> None:
    for seed, name in enumerate(("alpha", "beta"), start=1):
        write_model(tmp_path / f"{name}.gguf", replace(LARGE, seed=seed))
    size = (tmp_path / "alpha.gguf").stat().st_size
    assert size >= 300_000_000
    journal = Killer(tmp_path / "state" / "swaps.sqlite", step, victim=1, delay=0.5)
    pool = pool_with(journal)
    async with serving(tmp_path, pool):
        await pool.apply(document(tmp_path, "alpha", 1))
        await settled(pool, "alpha")
        await checked_ledger(pool, size * 3 // 100)
        journal.armed = True
        await pool.apply(document(tmp_path, "beta", 2, watchSeconds=2))
        await until(pool, is_over)
        assert journal.killed
        await until(pool, lambda _: len(workers()) == 1)
        await checked_ledger(pool, size * 3 // 100)
