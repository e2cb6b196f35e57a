"""Work under a lease, which is done again where it was broken off before anything came of it.

Once where its engine died, for a model whose engines keep dying must not be fed for ever; as often
as it has to make way where it is batch work. Either way within the request's time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import EngineDied, Preempted
from ullage_runtime.models.ports import Lease, Models

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


async def under_lease(
    models: Models,
    model: DesiredModel,
    work: Callable[[Lease], Awaitable[T]],
    *,
    tenant: str,
    priority: int = 0,
    beside: bool = False,
    background: bool = False,
    is_untold: Callable[[], bool] = lambda: True,
) -> T:
    """Return what comes of work that leases a model; raises ServingError.

    If the engine dies and `is_untold`, so that the client has seen nothing of it, the work is done
    once more, on the replacement. Batch work of which nothing was told makes way while memory is
    critical, and is done anew afterwards.
    """
    until: float | None = None
    has_died = False
    while True:
        try:
            async with models.lease(
                model,
                tenant=tenant,
                priority=priority,
                beside=beside,
                until=until,
                background=background,
            ) as lease:
                until = lease.deadline
                return await _making_way(lease, work, is_untold)
        except EngineDied as error:
            if until is None or has_died or not is_untold():
                raise
            has_died = True
            log.info("request goes to the replacement", model=model.name, why=error.message)
        except Preempted:
            if until is None:  # it never began, so there is nothing to come again for
                raise
            log.info("request makes way and comes again", model=model.name)


async def _making_way(
    lease: Lease, work: Callable[[Lease], Awaitable[T]], is_untold: Callable[[], bool]
) -> T:
    """Return what comes of work; raises Preempted if it had to be broken off."""
    if lease.make_way is None:
        return await work(lease)
    working = asyncio.ensure_future(work(lease))
    asked = asyncio.create_task(lease.make_way.wait())
    try:
        await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() or not is_untold():
            return await working
    finally:
        asked.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, asked, return_exceptions=True)
    raise Preempted("batch work makes way, as memory is nearly full", retry_after=1)
