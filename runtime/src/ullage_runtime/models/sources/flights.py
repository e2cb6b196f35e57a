"""Single flight: callers who want the same thing at once share one piece of work."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources.progress import ProgressCallback


@dataclass(slots=True)
class _Flight:
    listeners: list[ProgressCallback] = field(default_factory=list)
    task: "asyncio.Task[CachedModel] | None" = None

    def told(self, done: int, total: int | None) -> None:
        for listener in tuple(self.listeners):
            listener(done, total)


class Flights:
    """The fetches under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def join(
        self,
        key: Hashable,
        work: Callable[[ProgressCallback], Awaitable[CachedModel]],
        progress: ProgressCallback,
    ) -> CachedModel:
        """Return what the work returns, beginning it unless it is under way.

        Who is cancelled leaves the others undisturbed; with the last one the work is cancelled
        too, and has ended when this returns.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.ensure_future(self._flown(key, flight, work))
        task = flight.task
        if task is None:
            raise RuntimeError("a flight without its task")
        flight.listeners.append(progress)
        try:
            return await asyncio.shield(task)
        finally:
            flight.listeners.remove(progress)
            if not flight.listeners and not task.done():
                self._forget(key, flight)
                task.cancel()
                await asyncio.wait([task])
            if task.done() and not task.cancelled():
                task.exception()  # marks it as seen by those who wait for it

    async def _flown(
        self,
        key: Hashable,
        flight: _Flight,
        work: Callable[[ProgressCallback], Awaitable[CachedModel]],
    ) -> CachedModel:
        try:
            return await work(flight.told)
        finally:
            self._forget(key, flight)

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
