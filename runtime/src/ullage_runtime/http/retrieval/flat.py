"""The flat paths: searches and writes that need not name their collection in the path."""

from fastapi import Request

from ullage_runtime.core.errors import DiskFull, OperationNotFound
from ullage_runtime.http.openapi import refusals
from ullage_runtime.http.retrieval import service
from ullage_runtime.http.retrieval.access import collection_of, named, searcher_of, tenant_of
from ullage_runtime.http.retrieval.objects import FlatChangeObject, FlatSearchObject
from ullage_runtime.http.retrieval.router import EMBED, TAG, Wait
from ullage_runtime.http.retrieval.schema import Flat, FlatSearchBody, FlatUpsertBody, SearchBody
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import Services, ServicesOf

router = Router(tag=TAG)

_REFUSALS = refusals(*EMBED, OperationNotFound)


@router.post("/search", responses=_REFUSALS, response_model_exclude_none=True)
async def flat_search(
    body: FlatSearchBody, request: Request, services: ServicesOf
) -> FlatSearchObject:
    """Find points by meaning, unless another `search_type` or `mode` is asked for."""
    return await _searched(services, request, body, body.with_mode("Dense"))


@router.post("/hybrid_search", responses=_REFUSALS, response_model_exclude_none=True)
async def hybrid_search(
    body: FlatSearchBody, request: Request, services: ServicesOf
) -> FlatSearchObject:
    """Find points by meaning and by words."""
    return await _searched(services, request, body, body.with_mode("Hybrid"))


@router.post("/upsert", responses=refusals(*EMBED, OperationNotFound, DiskFull))
async def flat_upsert(
    body: FlatUpsertBody, request: Request, services: ServicesOf, *, wait: Wait = False
) -> FlatChangeObject:
    """Write points over what there is."""
    name = await named(services, request, body)
    found = collection_of(services, request, name)
    change = await service.upserted(found, body, wait=wait, tenant=tenant_of(request))
    return FlatChangeObject(collection=name, **dict(change))


async def _searched(
    services: Services, request: Request, flat: Flat, body: SearchBody
) -> FlatSearchObject:
    name = await named(services, request, flat)
    searcher = searcher_of(services, request, name)
    found = await service.searched(services, searcher, body, tenant=tenant_of(request))
    return FlatSearchObject(collection=name, **dict(found))
