"""Waits of one task, one after the other, each with an end, on one timer.

`asyncio.timeout` sets a timer for each wait and takes it back afterwards: 8 µs of the 130 or so
that a token costs a pod, twice. Here a timer that goes off early looks at how long the wait of that
moment may still take, and is set once more.
"""

import asyncio
from types import TracebackType
from typing import Self


class Waits:
    """`with waits.until(when):` raises TimeoutError at a time of the loop's clock; close it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._goes_off = 0.0
        self._until = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelled = 0
        self._is_late = False

    def until(self, when: float) -> Self:
        """Return itself, with the end of the next wait."""
        self._until = when
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._cancelled = 0 if self._task is None else self._task.cancelling()
        self._is_late = False
        if self._timer is None or self._goes_off > self._until:
            self._set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if not self._is_late or task is None:
            return
        # Whoever else cancelled the task means it.
        if task.uncancel() <= self._cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        self._goes_off = self._until
        self._timer = self._loop.call_at(self._until, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        if self._task is None:  # the next wait sets it again
            return
        if self._loop.time() < self._until:
            self._set()
        else:
            self._is_late = True
            self._task.cancel()
