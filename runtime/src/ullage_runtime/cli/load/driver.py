"""The two kinds of load: so many requests at once, or so many a second.

At a rate, requests are due whether or not the server keeps up, and each is timed from when it was
due. Otherwise a server that stalls would be asked less just then, and look better than it is: the
"coordinated omission" that Gil Tene describes.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from ullage_runtime.cli.load.outcome import Outcome
from ullage_runtime.cli.load.workload import Ask, Workload

FAILURE_PAUSE: Final = 0.1
"""Seconds before a failure is followed by the next request: a refusal must not be a busy loop."""

Clock = Callable[[], float]


class Asking(Protocol):
    """Something that answers requests."""

    async def ask(self, ask: Ask, intended: float) -> Outcome:
        """Send a request and return what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a load lasts: until so many requests or seconds, whichever is reached first."""

    requests: int | None = None
    seconds: float | None = None

    def goes_on(self, index: int, elapsed: float) -> bool:
        """Whether the request of this number is still to start."""
        return (self.requests is None or index < self.requests) and (
            self.seconds is None or elapsed < self.seconds
        )


async def at_once(
    target: Asking,
    workload: Workload,
    extent: Extent,
    concurrency: int,
    note: Callable[[Outcome], None] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> list[Outcome]:
    """Keep so many requests under way; each starts when the one before it has ended."""
    began = clock()
    numbers = itertools.count()
    outcomes: list[Outcome] = []

    async def keep_asking() -> None:
        while extent.goes_on(index := next(numbers), clock() - began):
            outcome = await target.ask(workload.ask(index), clock())
            outcomes.append(outcome)
            note(outcome)
            if outcome.failure is not None:
                await asyncio.sleep(FAILURE_PAUSE)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(keep_asking())
    return outcomes


async def at_rate(
    target: Asking,
    workload: Workload,
    extent: Extent,
    due: Iterator[float],
    max_in_flight: int,
    note: Callable[[Outcome], None] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> list[Outcome]:
    """Start each request when it is due, or as soon after that as `max_in_flight` allows."""
    began = clock()
    room = asyncio.Semaphore(max_in_flight)
    outcomes: list[Outcome] = []

    async def one(ask: Ask, intended: float) -> None:
        try:
            outcome = await target.ask(ask, intended)
        finally:
            room.release()
        outcomes.append(outcome)
        note(outcome)

    async with asyncio.TaskGroup() as group:
        for index, offset in enumerate(due):
            if not extent.goes_on(index, offset):
                break
            ask = workload.ask(index)
            await asyncio.sleep(max(0.0, began + offset - clock()))
            await room.acquire()
            group.create_task(one(ask, began + offset))
    return outcomes
