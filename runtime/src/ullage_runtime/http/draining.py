"""Draining: how a process stops taking requests and lets those it has come to their end."""

import asyncio
from typing import Protocol

from ullage_runtime.core.errors import ServingError, ShuttingDown


class Abortable(Protocol):
    """Something in flight that can be ended with an error."""

    def abort(self, error: ServingError) -> None:
        """End it now; its client is told the error."""
        ...


class Drain:
    """What is in flight, and whether more may come.

    `leaving` makes the process unready while requests are still taken; `stopping` refuses new
    ones, and ends what only tells how far others are; `abort_all` ends what is left.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.stopping = asyncio.Event()
        self.over = asyncio.Event()
        """Set when nothing may wait any longer, long-polls included."""
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._live: set[Abortable] = set()

    def entered(self) -> None:
        """Count a request in."""
        self.in_flight += 1
        self._idle.clear()

    def left(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    def add(self, work: Abortable) -> None:
        """Remember a generation that must be ended when the time is over."""
        self._live.add(work)

    def discard(self, work: Abortable) -> None:
        """Forget a generation that has ended."""
        self._live.discard(work)

    async def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is in flight; False when the time was over first."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abort_all(self) -> int:
        """End every generation with an error; return how many there were."""
        count = len(self._live)
        for work in list(self._live):
            work.abort(shutting_down())
        return count


def shutting_down() -> ShuttingDown:
    """Return the error for a request that an ending process cannot serve."""
    return ShuttingDown("this server is shutting down; send the request again", retry_after=1)
