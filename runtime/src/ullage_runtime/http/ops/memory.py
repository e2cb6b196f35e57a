"""What the pod's memory is used for: devices, and the models on them."""

from typing import Annotated

from fastapi import Query, Request

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openapi import CALLED, refusals
from ullage_runtime.http.ops.memory_objects import (
    MemoryDecisionList,
    MemoryStats,
    ModelMemoryList,
    decision_memory,
    device_memory,
    may_see,
    model_memory,
)
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Memory"

router = Router(prefix="/memory", tag=TAG)


@router.get("/stats", responses=refusals(*CALLED))
async def memory_stats(services: ServicesOf) -> MemoryStats:
    """Say how full each device of this pod is, and how much of it models take."""
    report = services.models.report()
    return MemoryStats(
        pod=report.pod, level=report.level, devices=[device_memory(d) for d in report.devices]
    )


@router.get("/models", responses=refusals(*CALLED))
async def memory_models(request: Request, services: ServicesOf) -> ModelMemoryList:
    """Say where each model's weights are on this pod and what they take."""
    key = request.scope.get(KEY)
    models = (m for m in services.models.report().models if may_see(key, m.name))
    return ModelMemoryList(data=[model_memory(m) for m in models])


@router.get("/evictions", responses=refusals(*CALLED, InvalidRequest))
async def memory_evictions(
    request: Request,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=100, description="Longest page.")] = 20,
    after: Annotated[
        int | None, Query(ge=1, description="Id of the last one that was seen; unset: the newest.")
    ] = None,
) -> MemoryDecisionList:
    """Say which models left memory, for whom and why, and which were not let in; newest first.

    The latest 1000 since the pod began are kept.
    """
    key = request.scope.get(KEY)
    found = [
        decision
        for decision in services.models.decisions()
        if may_see(key, decision.model) and (after is None or decision.id < after)
    ]
    page = found[:limit]
    return MemoryDecisionList(
        data=[decision_memory(d, key) for d in page],
        has_more=len(found) > limit,
        last_id=page[-1].id if page else None,
    )
