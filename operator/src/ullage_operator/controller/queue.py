"""The work queue: every key at most once, never two workers for one key, backoff per key.

The semantics are those of client-go's work queue, which level-triggered controllers have proved:

- A key that is added while it waits is already there; one added while it is worked on waits until
  that is done, and then comes once more. So no change is missed and none is worked on twice.
- `retry` brings a key back after a pause that doubles with each failure; `forget` resets it.
- `add_after` keeps the earliest time asked for.

It is bounded by the number of distinct keys, which is that of the resources in the cluster.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between tries of a failing key, in seconds."""

    first: float = 0.5
    factor: float = 2.0
    longest: float = 60.0
    jitter: float = 0.2
    """Share by which a pause is varied, so that keys which failed together part."""

    def pause(self, failures: int, chance: float) -> float:
        """Return the pause after so many failures; `chance` is drawn evenly from 0 to 1."""
        exponent = min(failures - 1, 30)
        plain = min(self.first * self.factor**exponent, self.longest)
        return plain * (1 + self.jitter * (2 * chance - 1))


class WorkQueue(Generic[K]):
    """A queue of keys for any number of workers of the event loop it is made in."""

    def __init__(
        self, *, backoff: Backoff | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._waiting: deque[K] = deque()
        self._since: dict[K, float] = {}
        """When each waiting key became due; also those that wait for their own worker to end."""
        self._running: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()

    def add(self, key: K) -> None:
        """Make a key due now."""
        self._cancel_timer(key)
        if key in self._since:
            return
        self._since[key] = self._time()
        if key not in self._running:
            self._waiting.append(key)
            self._available.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Make a key due after a while, unless it is due earlier anyway."""
        if seconds <= 0:
            self.add(key)
            return
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= self._time() + seconds:
            return
        self._cancel_timer(key)
        self._timers[key] = self._loop.call_later(seconds, self.add, key)

    def retry(self, key: K, *, at_least: float = 0.0) -> float:
        """Make a failed key due after its pause, which is returned."""
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        pause = max(self._backoff.pause(failures, self._chance()), at_least)
        self.add_after(key, pause)
        return pause

    def forget(self, key: K) -> None:
        """Let a key's next failure be its first."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """Forget all about a key that has ceased to exist; a pending time is cancelled."""
        self.forget(key)
        self._cancel_timer(key)

    async def get(self) -> K:
        """Return the next due key; the caller must say `done` when it has finished with it."""
        while not self._waiting:
            self._available.clear()
            await self._available.wait()
        key = self._waiting.popleft()
        del self._since[key]
        self._running[key] = self._time()
        return key

    def done(self, key: K) -> None:
        """End the work on a key; if it was added meanwhile, it is due now."""
        del self._running[key]
        if key in self._since:
            self._waiting.append(key)
            self._available.set()

    def close(self) -> None:
        """Cancel everything that was to become due later."""
        for key in list(self._timers):
            self._cancel_timer(key)

    @property
    def depth(self) -> int:
        """How many keys are due and not being worked on."""
        return len(self._waiting)

    @property
    def oldest_seconds(self) -> float:
        """For how long the longest waiting key has been due."""
        return self._age(self._since.values())

    @property
    def longest_seconds(self) -> float:
        """For how long the slowest worker has been at its key."""
        return self._age(self._running.values())

    def _age(self, moments: Iterable[float]) -> float:
        earliest = min(tuple(moments), default=None)
        return 0.0 if earliest is None else self._time() - earliest

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _time(self) -> float:
        # Read from another thread too, by the metrics' server.
        return self._loop.time()
