"""Workers go on whatever a reconcile does, and bring failed keys back after a pause."""

import asyncio

import pytest

from tests.support.virtual_time import in_virtual_time
from ullage_operator.controller.errors import (
    ConflictError,
    NameTakenError,
    RefusedError,
    TransientError,
)
from ullage_operator.controller.keys import Key
from ullage_operator.controller.queue import Backoff, WorkQueue
from ullage_operator.controller.workers import RECONCILE_SECONDS, work

KEY = Key.pool("team-a", "default")


class Counts:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        self.outcomes.append(outcome)

    def status_written(self, kind: str) -> None:
        raise AssertionError("workers write nothing")


async def attempts(
    errors: list[Exception | None],
) -> tuple[list[float], list[str]]:
    """Return when a key was tried and how each try ended."""
    queue: WorkQueue[Key] = WorkQueue(backoff=Backoff(first=1, factor=2, longest=60, jitter=0))
    counts = Counts()
    times: list[float] = []
    done = asyncio.Event()

    async def reconcile(key: Key) -> None:
        times.append(asyncio.get_running_loop().time())
        error = errors[len(times) - 1]
        if len(times) == len(errors):
            done.set()
        if isinstance(error, TimeoutError):
            await asyncio.sleep(10**6)
        if error is not None:
            raise error

    task = asyncio.create_task(work(queue, reconcile, counts, workers=2))
    queue.add(KEY)
    await done.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    queue.close()
    return times, counts.outcomes[: len(times)]


def test_a_failed_key_is_tried_again_with_growing_pauses_until_it_succeeds() -> None:
    times, outcomes = in_virtual_time(
        attempts([TransientError("away"), ConflictError("moved"), None])
    )
    assert times == pytest.approx([0, 1, 3])
    assert outcomes == ["transient", "conflict", "done"]


def test_what_the_server_asks_for_is_waited() -> None:
    times, _ = in_virtual_time(attempts([TransientError("busy", retry_after=30), None]))
    assert times == pytest.approx([0, 30])


def test_a_bug_ends_no_worker() -> None:
    _, outcomes = in_virtual_time(attempts([KeyError("oops"), RefusedError("422"), None]))
    assert outcomes == ["bug", "refused", "done"]


def test_an_error_of_a_group_of_tasks_is_known_by_its_first() -> None:
    group = ExceptionGroup("reads", [NameTakenError("x"), ValueError("y")])
    _, outcomes = in_virtual_time(attempts([group, None]))
    assert outcomes == ["failed", "done"]


def test_a_reconcile_that_hangs_is_cut_off() -> None:
    times, outcomes = in_virtual_time(attempts([TimeoutError(), None]))
    assert outcomes == ["timeout", "done"]
    assert times == pytest.approx([0, RECONCILE_SECONDS + 1])
