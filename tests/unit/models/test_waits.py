"""Waits of one task on one timer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from ullage_runtime.models.waits import Waits

LONG = 60.0
SHORT = 0.02


@pytest_asyncio.fixture
async def waits() -> AsyncIterator[Waits]:
    with closing(Waits()) as waits:
        yield waits


def at(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_comes_in_time_comes_and_what_does_not_is_late(waits: Waits) -> None:
    with waits.until(at(LONG)):
        assert await asyncio.sleep(0, "here") == "here"
    due = at(SHORT)
    with pytest.raises(TimeoutError), waits.until(due):
        await never()
    assert at(0.001) >= due
    with pytest.raises(TimeoutError), waits.until(at(-1)):
        await never()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling(), "nobody is cancelled afterwards"


async def test_many_waits_take_one_timer(monkeypatch: pytest.MonkeyPatch, waits: Waits) -> None:
    loop = asyncio.get_running_loop()
    original, ends = loop.call_at, []

    def noted(when: float, *given: object) -> asyncio.TimerHandle:
        ends.append(when)
        return original(when, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", noted)
    for _ in range(100):
        with waits.until(at(LONG)):
            await asyncio.sleep(0)
    assert len(ends) == 1


async def test_a_timer_that_goes_off_early_leaves_a_wait_its_time(waits: Waits) -> None:
    with waits.until(at(SHORT)):
        await asyncio.sleep(0)
    due = at(3 * SHORT)
    with pytest.raises(TimeoutError), waits.until(due):
        await never()
    assert at(0.001) >= due


async def test_a_timer_that_goes_off_between_waits_disturbs_nobody(waits: Waits) -> None:
    with waits.until(at(SHORT)):
        await asyncio.sleep(0)
    gone_off = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_at(at(2 * SHORT), gone_off.set_result, None)
    await gone_off
    with pytest.raises(TimeoutError), waits.until(at(SHORT)):
        await never()


async def test_who_is_cancelled_by_somebody_else_is_not_late(waits: Waits) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError), waits.until(at(LONG)):
        await never()
    task.uncancel()


async def test_a_deadline_around_a_wait_is_its_own(waits: Waits) -> None:
    late = False
    try:
        async with asyncio.timeout(SHORT) as around:
            with waits.until(at(LONG)):
                await never()
    except TimeoutError:
        late = around.expired()
    assert late
