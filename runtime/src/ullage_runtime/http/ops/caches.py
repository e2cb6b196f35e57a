"""What is kept of answers: how much it is, how often it helped, and forgetting it."""

from typing import Annotated, Literal

from fastapi import Query, Request
from pydantic import BaseModel, Field

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.auth import ANYBODY, Key
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openapi import CALLED, refusals
from ullage_runtime.http.ops.memory_objects import may_see
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import Services, ServicesOf
from ullage_runtime.models.kept import Outcome
from ullage_runtime.models.shelf import Shelf

TAG = "Caches"

CacheName = Literal["embeddings", "answers", "searches"]

router = Router(prefix="/cache", tag=TAG)


class CacheLookups(BaseModel):
    """What became of looking for one model's entries, since the pod began."""

    model: str
    hits: Annotated[int, Field(description="They were kept.")]
    disk: Annotated[int, Field(description="They were kept, on disk.")]
    shared: Annotated[int, Field(description="They were being computed for another request.")]
    misses: Annotated[int, Field(description="They had to be computed.")]


class CacheDisk(BaseModel):
    """What a cache has on disk."""

    entries: int
    bytes: int
    max: Annotated[int, Field(description="Bytes it may have.")]


class CacheState(BaseModel):
    """One cache."""

    name: CacheName
    entries: int
    bytes: int
    limit: Annotated[int, Field(description="Bytes it may have now: fewer while memory is short.")]
    max: Annotated[int, Field(description="Bytes it may have at most; 0: it is off.")]
    disk: CacheDisk | None = None
    models: list[CacheLookups]


class CacheStats(BaseModel):
    """The caches of this pod."""

    object: Literal["cache.stats"] = "cache.stats"
    pod: str
    caches: list[CacheState]


class CacheCleared(BaseModel):
    """What was forgotten; what was in memory and on disk counts twice."""

    object: Literal["cache.cleared"] = "cache.cleared"
    entries: int
    bytes: int


@router.get("/stats", responses=refusals(*CALLED))
async def cache_stats(request: Request, services: ServicesOf) -> CacheStats:
    """Say what each cache of this pod holds, and how often it had what was looked for."""
    key = request.scope.get(KEY)
    names: tuple[CacheName, ...] = ("embeddings", "answers", "searches")
    states = [await _state(services, name, key) for name in names]
    return CacheStats(pod=services.settings.pod_name, caches=states)


@router.delete("", responses=refusals(*CALLED, InvalidRequest))
async def clear_caches(
    request: Request,
    services: ServicesOf,
    cache: Annotated[
        CacheName | None, Query(description="The one that is meant; unset: all.")
    ] = None,
    model: Annotated[
        str | None, Query(description="Name of the model whose entries are meant; unset: of all.")
    ] = None,
) -> CacheCleared:
    """Forget what this pod keeps for the caller.

    For the operator, and for anybody where no keys are asked for, that is everything.
    """
    key = request.scope.get(KEY)
    tenant = None if key in (None, ANYBODY) else key.id
    size = await services.caches.clear(cache, model=model, tenant=tenant)
    return CacheCleared(entries=size.entries, bytes=size.bytes)


async def _state(services: Services, name: CacheName, key: Key | None) -> CacheState:
    kept = services.caches.named(name)
    size = kept.cache.size
    shelf = services.caches.shelf if name == "embeddings" else None
    models = sorted({model for model, _ in kept.lookups if may_see(key, model)})
    return CacheState(
        name=name,
        entries=size.entries,
        bytes=size.bytes,
        limit=kept.cache.limit_bytes,
        max=kept.cache.max_bytes,
        disk=None if shelf is None else await _disk(shelf),
        models=[
            CacheLookups(
                model=model,
                hits=kept.lookups[model, Outcome.HIT],
                disk=kept.lookups[model, Outcome.DISK],
                shared=kept.lookups[model, Outcome.SHARED],
                misses=kept.lookups[model, Outcome.MISS],
            )
            for model in models
        ],
    )


async def _disk(shelf: Shelf) -> CacheDisk:
    size = await shelf.size()
    return CacheDisk(entries=size.entries, bytes=size.bytes, max=shelf.max_bytes)
