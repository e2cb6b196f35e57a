"""Batch work: requests that make way while memory is `Critical`, and go on once it is not.

That is the requests of models whose priority is `Batch`, and what no client waits for, such as
documents on their way into a collection. A model with nothing else to do is idle meanwhile, and
leaves as idle models do at that level: so what was in use only for them comes free.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.errors import MemoryBusy
from ullage_runtime.models.metrics import ModelMetrics

RETRY_SECONDS: Final = 30.0
"""When a request that was held in vain is asked to come again."""

_log = structlog.get_logger(__name__)


class BatchWork:
    """The batch work of one pod: whether it may run, and who must be told that it may not."""

    def __init__(self, metrics: ModelMetrics) -> None:
        self._metrics = metrics
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._make_way: set[Callable[[], None]] = set()

    @property
    def is_paused(self) -> bool:
        """Whether memory is so full that none of it may run."""
        return not self._may_run.is_set()

    def follow(self, level: MemoryLevel) -> None:
        """Pause at `Critical`, go on at any other level."""
        if level is not MemoryLevel.CRITICAL:
            self.go_on()
        elif not self.is_paused:
            self._may_run.clear()
            self._metrics.batch_paused.set(1)
            _log.info("batch.paused", requests=len(self._make_way))
            for make_way in tuple(self._make_way):
                make_way()

    def go_on(self) -> None:
        """Have it run, whatever the level was."""
        if self.is_paused:
            self._may_run.set()
            self._metrics.batch_paused.set(0)
            _log.info("batch.goes_on")

    def note_preempted(self) -> None:
        """Count a request that was broken off."""
        self._metrics.batch_preemptions.inc()

    @contextmanager
    def interruptible(self, make_way: Callable[[], None]) -> Iterator[None]:
        """Have it called, within, once batch work has to make way; at once if it has to now."""
        if self.is_paused:
            make_way()
        self._make_way.add(make_way)
        try:
            yield
        finally:
            self._make_way.discard(make_way)

    async def may_run(self, until: float) -> bool:
        """Wait until it may run, or until a time; tell whether it may."""
        if not self.is_paused:
            return True
        self._metrics.batch_waiting.inc()
        try:
            async with asyncio.timeout_at(until):
                await self._may_run.wait()
        except TimeoutError:
            return not self.is_paused
        finally:
            self._metrics.batch_waiting.dec()
        return True


def held_in_vain(model: str) -> MemoryBusy:
    """Return what a request is told that was held as long as allowed."""
    return MemoryBusy(
        f"the pod's memory is nearly full, and what is asked of model {model!r} is batch work, "
        "which waits until it is not; the request was held as long as allowed",
        retry_after=RETRY_SECONDS,
    )
