"""The right to drive a job: kept while the worker lives, lost once another one has it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.reindexing.rate import Pace, Pressure
from ullage_runtime.retrieval.reindex.wire import Lease, LeaseRequest, Load
from ullage_runtime.retrieval.reindex.worker.pod import Busy, Pod, WorkerError

log = structlog.stdlib.get_logger(__name__)

RENEWALS: Final = 4
"""How often a lease is renewed before it would end."""
BUSY_PAUSE: Final = 1.0
"""Between two attempts to take a lease that another worker has."""
GOING_SECONDS: Final = 3.0
"""How long a worker that is asked to end may take to say so."""


def pressure(load: Load) -> Pressure:
    """Return how busy the pod is, as the pace wants it."""
    level = MemoryLevel(load.level) if load.level in set(MemoryLevel) else None
    return Pressure(load.search_p95_seconds, load.searches, load.queue, load.lag, level)


@dataclass(slots=True)
class Leased:
    """The lease of one worker, and what the pod last said with it."""

    pod: Pod
    worker: str
    pace: Pace
    clock: Callable[[], float]
    _lease: Lease | None = None

    @property
    def lease(self) -> Lease:
        """What the pod last said."""
        if self._lease is None:
            raise RuntimeError("the lease has not been taken")
        return self._lease

    async def take(self) -> None:
        """Take the lease, waiting for as long as another worker has it."""
        while True:
            try:
                await self._ask(None)
            except Busy as error:
                log.info("another worker drives", told=str(error))
                await asyncio.sleep(BUSY_PAUSE)
            else:
                return

    async def renew(self) -> None:
        """Renew it and hear how things stand; raises Fenced."""
        await self._ask(self.lease.token)

    async def keep(self) -> None:
        """Renew it in time; runs until cancelled."""
        while True:
            await asyncio.sleep(self.lease.seconds / RENEWALS)
            await self.renew()

    async def let_go(self) -> None:
        """Say that this worker goes; a pod that does not hear it waits for the lease's end."""
        if self._lease is None:
            return
        request = LeaseRequest(worker=self.worker, token=self._lease.token, ends=True)
        with contextlib.suppress(WorkerError, TimeoutError):
            async with asyncio.timeout(GOING_SECONDS):
                await self.pod.lease(request)

    def note(self, load: Load) -> None:
        """Have the pace follow what the pod says of its load."""
        self.pace.adjust(pressure(load), self.clock())

    async def _ask(self, token: int | None) -> None:
        before = self._lease
        lease = await self.pod.lease(LeaseRequest(worker=self.worker, token=token))
        self._lease = lease
        limit = lease.points_per_second
        self.pace.allow(None if limit is None else float(limit))
        if before is not None:
            self.note(lease.load)
        elif not lease.checkpoint:
            self.pace.at_rest(pressure(lease.load))
