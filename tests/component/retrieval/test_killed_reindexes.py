"""Whoever is killed in whatever phase of a reindex: it is finished or undone, and nothing is lost.

One seed for each phase and victim; `make soak` plays ten.
"""

import asyncio
import os
import pathlib
import random
import signal
import sys

import pytest

from tests.support.killed_reindex import POINTS, WISHES, job_of
from tests.support.reindexed import MODELS, Place, place, spec
from ullage_api.kinds.reindex_phase import ReindexPhase

SEEDS = range(1, 1 + min(10, int(os.environ.get("ULLAGE_SOAK_SEEDS", "1"))))
PHASES = [
    each.value
    for each in ReindexPhase
    if not each.is_over and each not in {ReindexPhase.PENDING, ReindexPhase.QUEUED}
]


async def killed(folder: pathlib.Path, phase: str, seed: int) -> tuple[dict[int, int], int]:
    """Let a process live until it kills itself; return what it acknowledged, and what it began."""
    delay = random.Random(seed).choice((0.0, 0.01, 0.1))  # noqa: S311 - not for secrets
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.killed_reindex",
        str(folder), phase, str(delay), str(seed),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(240):
        out, err = await process.communicate()
    assert process.returncode == -signal.SIGKILL, err.decode()[-2000:]
    state = dict.fromkeys(range(POINTS), 0)
    open_number = -1
    for line in out.decode().splitlines():
        word, *rest = line.split() or [""]
        if word not in {"begin", "done"}:
            continue  # the log
        number, turn = rest
        open_number = int(number) if word == "begin" else -1
        if word == "done":
            state[int(number)] = int(turn)
    return state, open_number


async def check(here: Place, state: dict[int, int], doubtful: int, model: str) -> None:
    """Hold what is read against what was acknowledged."""
    assert here.notes.model == model
    points, _ = await here.notes.scroll(after=None, limit=1000, where=None, vectors=True)
    found = {int(p.id): p.payload.get("turn", 0) for p in points if p.id != doubtful}
    assert found == {n: turn for n, turn in state.items() if turn >= 0 and n != doubtful}
    assert {len(point.dense or ()) for point in points} == {MODELS[model]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("phase", PHASES)
async def test_a_process_that_is_killed_in_a_phase_is_gone_on_from(
    tmp_path: pathlib.Path, phase: str, seed: int
) -> None:
    state, doubtful = await killed(tmp_path, phase, seed)
    async with place(tmp_path, spec("large")) as here:
        goes_back = phase in {"RollingBack", "Cancelling"}
        given = {**job_of(phase), **(WISHES[phase][1] if goes_back else {})}
        await here.job(**given)
        if goes_back:
            await here.reached("Cancelled")
            await check(here, state, doubtful, "small")
            return
        await here.reached("Soaking" if phase == "Soaking" else "Succeeded")
        await check(here, state, doubtful, "large")
        assert await here.notes.store.describe(here.notes.physical) is not None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("phase", ["Copying", "Indexing", "Verifying", "Soaking", "Cleaning"])
async def test_the_store_is_killed_in_a_phase_and_the_job_goes_on(
    tmp_path: pathlib.Path, phase: str, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    async with place(tmp_path, spec()) as here:
        await here.write(*range(POINTS))
        await here.wants(spec("large"), 2)
        victims: list[int] = []

        def look() -> None:
            owner = here.collections._owner
            if here.report().phase == phase and not victims and owner is not None:
                assert owner.pid is not None
                victims.append(owner.pid)
                os.kill(owner.pid, signal.SIGKILL)

        here.reindexes.on_change = look
        await here.job(rollbackSeconds=0 if phase != "Soaking" else dice.choice((0, 1)))
        await here.reached("Succeeded")
        assert victims
        await check(here, dict.fromkeys(range(POINTS), 0), -1, "large")
