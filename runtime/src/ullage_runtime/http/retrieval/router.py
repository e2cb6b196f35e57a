"""The paths of collections."""

from typing import Annotated

from fastapi import Path, Query, Request
from starlette.responses import Response

from ullage_runtime.core.errors import (
    CollectionNotFound,
    CollectionUnavailable,
    DimensionMismatch,
    DiskFull,
    DocumentNotFound,
    Forbidden,
    OperationNotFound,
    PointNotFound,
    RequestTimeout,
)
from ullage_runtime.http import sse
from ullage_runtime.http.openapi import CALLED, SENT, SERVED, refusals, stream_of
from ullage_runtime.http.retrieval import service
from ullage_runtime.http.retrieval.access import (
    CollectionOf,
    IngestionOf,
    Name,
    SearcherOf,
    TenantOf,
    held_of,
    operation_of,
    usable,
)
from ullage_runtime.http.retrieval.objects import (
    BatchObject,
    ChangeObject,
    CollectionList,
    CollectionObject,
    CountObject,
    DocumentObject,
    OperationObject,
    PointList,
    PointObject,
    SearchObject,
)
from ullage_runtime.http.retrieval.progress import ProgressStream
from ullage_runtime.http.retrieval.schema import (
    BatchBody,
    CountBody,
    DeleteBody,
    DocumentsBody,
    PayloadBody,
    RecommendBody,
    RetrieveBody,
    ScrollBody,
    SearchBody,
    UpsertBody,
)
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.retrieval.points import checked_ids

TAG = "Collections"

router = Router(prefix="/v1", tag=TAG)

Wait = Annotated[
    bool, Query(description="Whether to answer only once every search sees the change.")
]

READ = (
    *CALLED,
    *SENT,
    Forbidden,
    CollectionNotFound,
    CollectionUnavailable,
    RequestTimeout,
)
WRITE = (*READ, DiskFull)
EMBED = (*SERVED, CollectionNotFound, CollectionUnavailable, DimensionMismatch)


@router.get("/collections", responses=refusals(*READ))
async def list_collections(request: Request, services: ServicesOf) -> CollectionList:
    """List the collections that the key may use, ready or not."""
    found = [held_of(services, request, name) for name in usable(services, request)]
    return CollectionList(
        collections=[await service.described(services.collections, held) for held in found]
    )


@router.get("/collections/{collection}", responses=refusals(*READ))
async def get_collection(
    collection: Name, request: Request, services: ServicesOf
) -> CollectionObject:
    """Say how a collection stands."""
    return await service.described(services.collections, held_of(services, request, collection))


@router.put("/collections/{collection}/points", responses=refusals(*EMBED, DiskFull))
async def upsert_points(
    found: CollectionOf,
    body: UpsertBody,
    tenant: TenantOf,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Write points over what there is; the collection's model embeds their texts."""
    return await service.upserted(found, body, wait=wait, tenant=tenant)


@router.get("/collections/{collection}/points/{point}", responses=refusals(*READ, PointNotFound))
async def get_point(
    found: CollectionOf,
    point: Annotated[str, Path(max_length=64)],
) -> PointObject:
    """Return a point with its vectors."""
    return await service.one_point(found, point)


@router.post("/collections/{collection}/points/retrieve", responses=refusals(*READ))
async def retrieve_points(found: CollectionOf, body: RetrieveBody) -> PointList:
    """Return those of some points that exist."""
    points = await found.retrieve(checked_ids(body.ids, "ids"), vectors=body.with_vectors)
    return PointList(points=[service.point_object(each) for each in points], next=None)


@router.post("/collections/{collection}/points/scroll", responses=refusals(*READ))
async def scroll_points(found: CollectionOf, body: ScrollBody) -> PointList:
    """Return a page of all points in the order of their ids."""
    return await service.scrolled(found, body)


@router.post("/collections/{collection}/points/count", responses=refusals(*READ))
async def count_points(found: CollectionOf, body: CountBody) -> CountObject:
    """Count points exactly."""
    return CountObject(count=await found.count(body.filter))


@router.post("/collections/{collection}/points/delete", responses=refusals(*WRITE))
async def delete_points(
    found: CollectionOf,
    body: DeleteBody,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Have points be no more, by their ids or by a filter."""
    return await service.deleted(found, body, wait=wait)


@router.post("/collections/{collection}/points/payload", responses=refusals(*WRITE))
async def set_payload(
    found: CollectionOf,
    body: PayloadBody,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Set fields of points' payloads, by their ids or by a filter."""
    return await service.payload_set(found, body, wait=wait)


@router.post(
    "/collections/{collection}/search",
    responses=refusals(*EMBED),
    response_model_exclude_none=True,
)
async def search(
    searcher: SearcherOf, body: SearchBody, services: ServicesOf, tenant: TenantOf
) -> SearchObject:
    """Find points by meaning, by words, or by both."""
    return await service.searched(services, searcher, body, tenant=tenant)


@router.post(
    "/collections/{collection}/search/batch",
    responses=refusals(*EMBED),
    response_model_exclude_none=True,
)
async def search_batch(searcher: SearcherOf, body: BatchBody, tenant: TenantOf) -> BatchObject:
    """Do several searches at once."""
    return await service.searched_all(searcher, body, tenant=tenant)


@router.post(
    "/collections/{collection}/recommend",
    responses=refusals(*EMBED, PointNotFound),
    response_model_exclude_none=True,
)
async def recommend(searcher: SearcherOf, body: RecommendBody, tenant: TenantOf) -> SearchObject:
    """Find points that are like some and unlike others."""
    return await service.recommended(searcher, body, tenant=tenant)


@router.post("/collections/{collection}/documents", status_code=202, responses=refusals(*WRITE))
async def add_documents(
    ingestion: IngestionOf,
    body: DocumentsBody,
    *,
    wait: Wait = False,
) -> OperationObject:
    """Take documents in, to be cut into chunks, embedded and found.

    One that is there already, just so, is left as it is. With `wait` it is answered once all are
    done, after a minute at the latest.
    """
    return await service.ingested(ingestion, body, wait=wait)


@router.get(
    "/collections/{collection}/documents/{document:path}",
    responses=refusals(*READ, DocumentNotFound),
)
async def get_document(
    ingestion: IngestionOf,
    document: Annotated[str, Path(max_length=512)],
) -> DocumentObject:
    """Return a document as it was given, and how far it has come."""
    return service.document_object(await ingestion.document(document))


@router.delete(
    "/collections/{collection}/documents/{document:path}",
    responses=refusals(*WRITE, DocumentNotFound),
)
async def delete_document(
    ingestion: IngestionOf,
    document: Annotated[str, Path(max_length=512)],
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Forget a document and all its chunks."""
    return await service.document_deleted(ingestion, document, wait=wait)


@router.get(
    "/operations/{operation}",
    response_model=OperationObject,
    responses={
        200: {
            "description": "The operation as it is; or, with `Accept: text/event-stream`, an "
            "event each time it has come further, the last with `status: completed`.",
            "content": stream_of(OperationObject, done=False),
        },
        **refusals(*READ, OperationNotFound),
    },
)
async def get_operation(
    operation: Annotated[str, Path(max_length=128)],
    request: Request,
    services: ServicesOf,
) -> OperationObject | Response:
    """Say how far the documents of a call have come, once or until they are done."""
    name, found = await operation_of(services, request, operation)
    if not sse.is_wanted(request):
        return service.operation_object(found)
    ingestion = services.collections.ingestion(name)
    return ProgressStream(
        ingestion,
        found,
        services.watchers,
        heartbeat=services.settings.heartbeat_seconds,
        over=services.drain.stopping,
    )
