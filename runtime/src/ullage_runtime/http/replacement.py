"""Work under a lease, which is done again where its engine dies before anything came of it.

Once, and within the request's time: a model whose engines keep dying must not be fed for ever.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import EngineDied
from ullage_runtime.models.ports import Lease, Models

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


async def under_lease(
    models: Models,
    model: DesiredModel,
    work: Callable[[Lease], Awaitable[T]],
    *,
    tenant: str,
    beside: bool = False,
    is_untold: Callable[[], bool] = lambda: True,
) -> T:
    """Return what comes of work that leases a model; raises ServingError.

    If the engine dies and `is_untold`, so that the client has seen nothing of it, the work is done
    once more, on the replacement.
    """
    until: float | None = None
    try:
        async with models.lease(model, tenant=tenant, beside=beside) as lease:
            until = lease.deadline
            return await work(lease)
    except EngineDied as error:
        if until is None or not is_untold():
            raise
        log.info("request goes to the replacement", model=model.name, why=error.message)
    async with models.lease(model, tenant=tenant, beside=beside, until=until) as lease:
        return await work(lease)
