"""Versions change under fifty streams on real sockets: nothing fails, and nothing is spliced."""

import asyncio
import os
import pathlib

import psutil
import pytest

from tests.support.runtimes import eventually
from tests.support.swaps import (
    STREAMS,
    Listeners,
    document,
    pool_with,
    serving,
    settled,
    until,
    write_pair,
)
from tests.support.workers import SLACK, open_files
from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import Strategy, SwapStep, Transition
from ullage_runtime.models.pool import ModelPool

SWAPS = int(os.environ.get("ULLAGE_SOAK_SWAPS", "4"))
"""How many in a row; `make soak` does 200."""
GROWTH = 64 << 20
"""Bytes by which the serving process may have grown, also after very many of them."""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_pair(tmp_path)
    return tmp_path


def ledger(pool: ModelPool) -> int:
    return pool.report().devices[0].ledger_bytes


def own_bytes() -> int:
    """Return what the process that serves takes, without its workers."""
    taken: int = psutil.Process().memory_info().rss
    return taken


@pytest.mark.parametrize("strategy", [Strategy.LOAD_THEN_DRAIN, Strategy.DRAIN_THEN_LOAD])
async def test_a_swap_under_fifty_streams_fails_none_and_splices_none(
    folder: pathlib.Path, strategy: Strategy
) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        async with Listeners(runtime.url) as listeners:
            await listeners.heard(STREAMS)
            await pool.apply(document(folder, "beta", 2, strategy=strategy.value))
            done = await settled(pool, "beta")
            await listeners.heard(2 * STREAMS)
        assert listeners.failed == []
        assert listeners.mixed == []
        assert listeners.texts["alpha"] >= STREAMS
        assert listeners.texts["beta"] >= STREAMS
        assert done.swap is not None
        assert done.swap.strategy is strategy
        assert (done.swap.drain_seconds is None) == (strategy is Strategy.LOAD_THEN_DRAIN)


async def test_swaps_in_a_row_leave_memory_and_ledger_as_they_were(folder: pathlib.Path) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        before, open_before, sizes = ledger(pool), open_files(), []
        async with Listeners(runtime.url, count=4) as listeners:
            for number in range(SWAPS):
                name = ("beta", "alpha")[number % 2]
                await pool.apply(document(folder, name, 2 + number))
                await settled(pool, name)
                sizes.append(own_bytes())
        assert listeners.failed == listeners.mixed == []
        assert sizes[-1] - sizes[0] < GROWTH
        # A generation takes more than twice that.
        await until(pool, lambda _: abs(ledger(pool) - before) < SLACK)
        # The server closes the listeners' connections in its own time.
        await eventually(lambda: open_files() <= open_before + 2)


async def test_a_newer_spec_ends_the_load_of_an_older_one(folder: pathlib.Path) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        first = await settled(pool, "alpha")
        async with Listeners(runtime.url, count=8) as listeners:
            await pool.apply(document(folder, "beta", 2))
            await until(pool, lambda m: m.swap is not None and m.swap.step is SwapStep.LOADING)
            await pool.apply(document(folder, "alpha", 3))
            back = await settled(pool, "alpha")
            await listeners.heard(16)
        assert first.active is not None
        assert back.active is not None
        assert back.active.revision == first.active.revision
        assert listeners.failed == listeners.mixed == []
        assert listeners.texts["beta"] == 0


async def test_what_does_not_say_what_the_spec_expects_never_answers_anybody(
    folder: pathlib.Path,
) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        async with Listeners(runtime.url, count=8) as listeners:
            prompts = [{"prompt": "Who are you?", "expect": {"contains": "gamma"}}]
            await pool.apply(document(folder, "beta", 2, validation=prompts))
            blocked = await until(pool, lambda m: m.final)
            await listeners.heard(8)
        assert blocked.reason is Reason.VALIDATION_FAILED
        assert blocked.transition is Transition.BLOCKED_BY_FAILED_LOAD
        assert "was answered ' beta0 beta1" in blocked.message
        assert "expected was one that contains 'gamma'" in blocked.message
        assert listeners.failed == listeners.mixed == []
        assert listeners.texts["beta"] == 0
        prompts = [{"prompt": "Who are you?", "expect": {"contains": "beta39"}}]
        await pool.apply(document(folder, "beta", 3, validation=prompts))
        await settled(pool, "beta")


async def test_a_canary_answers_its_share_and_then_everybody(folder: pathlib.Path) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        async with Listeners(runtime.url, count=8) as listeners:
            canary = {"steps": [{"weight": 20}]}
            await pool.apply(document(folder, "beta", 2, canary=canary))
            await until(pool, lambda m: m.swap is not None and m.swap.step is SwapStep.CANARY)
            listeners.texts.clear()
            await listeners.heard(200)
            share = listeners.texts["beta"] / listeners.texts.total()
            await pool.apply(document(folder, "beta", 3))
            await settled(pool, "beta")
            await asyncio.sleep(0)
        assert 0.1 < share < 0.3
        assert listeners.failed == listeners.mixed == []
