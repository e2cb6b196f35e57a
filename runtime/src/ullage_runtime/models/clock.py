"""Time and chance as the models' lifecycle sees them, so that tests may own both."""

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time, waiting and chance."""

    def wall(self) -> float:
        """Return seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; the event loop's own."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def jitter(self) -> float:
        """Return a number from 0 to 1, different each time."""
        ...


class SystemClock:
    """The machine's clock."""

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the running event loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        """Return a random number; spreading retries needs no secrecy."""
        return random.random()  # noqa: S311
