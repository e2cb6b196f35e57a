"""One worker's life: it takes the lease, does what the job's phase is about, and ends with it."""

import asyncio
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, Final

import structlog

from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_runtime.retrieval.reindex.worker.copying import Copying
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import (
    Fenced,
    Forbidden,
    NotNow,
    Pod,
    WorkerError,
)
from ullage_runtime.retrieval.reindex.worker.verifying import Verifying

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS: Final = 0.5
"""How often a worker that has nothing to do asks how the job stands."""
LOOKS: Final = 20
"""After how many looks what was done is done again: the pod may have lost it."""
NEEDED: Final = frozenset(
    {
        Phase.PENDING,
        Phase.QUEUED,
        Phase.PREPARING,
        Phase.DUAL_WRITING,
        Phase.COPYING,
        Phase.CATCHING_UP,
        Phase.INDEXING,
        Phase.VERIFYING,
        Phase.READY_TO_SWITCH,
        Phase.PAUSED,
    }
)
"""Phases after which a worker may be needed yet: a verification can get stale."""


class ExitCode(IntEnum):
    """How a worker's process ends."""

    DONE = 0
    """Nothing is left for a worker to do."""
    POD_AWAY = 1
    """The pod did not answer for too long; start it again."""
    FORBIDDEN = 2
    """The pod does not accept the token or the request; starting it again does not help."""
    FENCED = 3
    """Another worker has the lease."""
    TERMINATED = 143
    """It was asked to end, as by a drain of its node, and the next one goes on at once."""


class Driving:
    """Drives one job until no worker is needed any more."""

    def __init__(
        self, pod: Pod, leased: Leased, verifying: Callable[[Pod, Leased], Verifying] = Verifying
    ) -> None:
        self._pod = pod
        self._leased = leased
        self._verifying = verifying

    async def run(self) -> ExitCode:
        """Drive the job; return how it ended."""
        try:
            await self._leased.take()
            while (phase := self._leased.lease.phase) in NEEDED:
                if phase is Phase.COPYING and self._copies:
                    await self._beside_renewals(Copying(self._pod, self._leased).run())
                elif phase is Phase.VERIFYING:
                    await self._beside_renewals(self._verifying(self._pod, self._leased).run())
                await self._moved_on(phase)
        except Fenced as error:
            log.warning("another worker drives now", told=str(error))
            return ExitCode.FENCED
        except Forbidden as error:
            log.error("the pod refuses", told=str(error))  # noqa: TRY400 - the words say it all
            return ExitCode.FORBIDDEN
        except WorkerError as error:
            log.error("the job cannot go on", told=str(error))  # noqa: TRY400 - likewise
            return ExitCode.POD_AWAY
        log.info("no worker is needed any more", phase=phase.value)
        return ExitCode.DONE

    async def _moved_on(self, phase: Phase) -> None:
        """Look how the job stands until it is in another phase, or for a while."""
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK_SECONDS)
            await self._leased.renew()
            if self._leased.lease.phase is not phase:
                return

    @property
    def _copies(self) -> bool:
        plan = self._leased.lease.plan
        return plan is not None and plan.copies

    async def _beside_renewals(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something while the lease is kept; what the phase has no place for is left."""
        doing = asyncio.create_task(work)
        keeping = asyncio.create_task(self._leased.keep())
        try:
            await asyncio.wait({doing, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping  # it ends by an error only
            await doing
        except NotNow as error:
            log.info("the job has gone on", told=str(error))
        finally:
            for task in (doing, keeping):
                task.cancel()
            await asyncio.gather(doing, keeping, return_exceptions=True)
