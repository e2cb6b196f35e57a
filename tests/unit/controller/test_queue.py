"""The work queue, in virtual time."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtual_time import in_virtual_time
from ullage_operator.controller.queue import Backoff, WorkQueue

EVEN = Backoff(first=1.0, factor=2.0, longest=10.0, jitter=0.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_key_added_twice_comes_once() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("a")
        assert queue.depth == 1
        assert await queue.get() == "a"
        assert queue.depth == 0

    in_virtual_time(story())


def test_a_key_added_while_it_is_worked_on_comes_again_after_and_not_before() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        assert queue.depth == 0
        queue.done(key)
        assert queue.depth == 1
        assert await queue.get() == "a"

    in_virtual_time(story())


def test_pauses_double_up_to_the_longest_and_begin_anew_when_forgotten() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(backoff=EVEN)
        pauses = []
        for _ in range(6):
            pauses.append(queue.retry("a"))
            await queue.get()
            queue.done("a")
        assert pauses == [1, 2, 4, 8, 10, 10]
        queue.forget("a")
        assert queue.retry("a") == 1

    in_virtual_time(story())


def test_a_retried_key_comes_after_its_pause() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue(backoff=EVEN)
        queue.retry("a", at_least=7)
        await queue.get()
        assert now() == pytest.approx(7)

    in_virtual_time(story())


def test_jitter_stays_within_its_share() -> None:
    backoff = Backoff(first=10, jitter=0.2)
    assert backoff.pause(1, 0.0) == pytest.approx(8)
    assert backoff.pause(1, 1.0) == pytest.approx(12)
    assert backoff.pause(1000, 0.5) == backoff.longest


def test_of_two_times_the_earlier_counts() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 50)
        queue.add_after("a", 5)
        queue.add_after("a", 500)
        await queue.get()
        queue.done("a")
        assert now() == pytest.approx(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await queue.get()

    in_virtual_time(story())


def test_a_key_that_becomes_due_now_is_not_due_again_later() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 50)
        queue.add("a")
        queue.done(await queue.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await queue.get()

    in_virtual_time(story())


def test_a_dropped_key_never_comes() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 5)
        queue.drop("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await queue.get()

    in_virtual_time(story())


def test_ages_tell_who_waits_and_who_works() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert queue.oldest_seconds == queue.longest_seconds == 0
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(3)
        assert queue.oldest_seconds == pytest.approx(3)
        await queue.get()
        await asyncio.sleep(2)
        assert queue.oldest_seconds == pytest.approx(5)
        assert queue.longest_seconds == pytest.approx(2)

    in_virtual_time(story())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 3)), max_size=40),
    st.integers(1, 4),
    st.lists(st.floats(0, 2), min_size=1, max_size=10),
)
def test_no_key_has_two_workers_and_no_add_is_lost(
    adds: list[tuple[str, float]], workers: int, durations: list[float]
) -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        running: set[str] = set()
        last_add: dict[str, float] = {}
        last_start: dict[str, float] = {}
        turn = iter(range(10**6))

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in running
                running.add(key)
                last_start[key] = now()
                await asyncio.sleep(durations[next(turn) % len(durations)])
                running.remove(key)
                queue.done(key)

        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(work()) for _ in range(workers)]
            for key, pause in adds:
                await asyncio.sleep(pause)
                last_add[key] = now()
                queue.add(key)
            await asyncio.sleep(1000)
            for task in started:
                task.cancel()
        assert queue.depth == 0
        for key, added in last_add.items():
            assert last_start[key] >= added

    in_virtual_time(story())


def test_closing_cancels_what_was_to_come() -> None:
    async def story() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("a", 5)
        queue.close()
        await asyncio.sleep(10)
        assert queue.depth == 0

    in_virtual_time(story())
