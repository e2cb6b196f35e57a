"""The paths of collections."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

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
from ullage_runtime.http.openapi import CALLED, SENT, SERVED, refusals
from ullage_runtime.http.retrieval import service
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
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.retrieval.points import checked_ids

TAG = "Collections"

router = APIRouter(prefix="/v1", tags=[TAG])

Name = Annotated[str, Path(min_length=1, max_length=128)]
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
async def list_collections(services: ServicesOf) -> CollectionList:
    """List every collection, ready or not."""
    collections = services.collections
    described = [await service.described(collections, name) for name in collections.names()]
    return CollectionList(collections=described)


@router.get("/collections/{collection}", responses=refusals(*READ))
async def get_collection(
    collection: Name, request: Request, services: ServicesOf
) -> CollectionObject:
    """Say how a collection stands."""
    del request
    return await service.described(services.collections, collection)


@router.put("/collections/{collection}/points", responses=refusals(*EMBED, DiskFull))
async def upsert_points(
    collection: Name,
    body: UpsertBody,
    request: Request,
    services: ServicesOf,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Write points over what there is; the collection's model embeds their texts."""
    found = service.collection_of(services, request, collection)
    return await service.upserted(found, body, wait=wait, tenant=service.tenant_of(request))


@router.get("/collections/{collection}/points/{point}", responses=refusals(*READ, PointNotFound))
async def get_point(
    collection: Name,
    point: Annotated[str, Path(max_length=64)],
    request: Request,
    services: ServicesOf,
) -> PointObject:
    """Return a point with its vectors."""
    found = service.collection_of(services, request, collection)
    return await service.one_point(found, point)


@router.post("/collections/{collection}/points/retrieve", responses=refusals(*READ))
async def retrieve_points(
    collection: Name, body: RetrieveBody, request: Request, services: ServicesOf
) -> PointList:
    """Return those of some points that exist."""
    found = service.collection_of(services, request, collection)
    points = await found.retrieve(checked_ids(body.ids, "ids"), vectors=body.with_vectors)
    return PointList(points=[service.point_object(each) for each in points], next=None)


@router.post("/collections/{collection}/points/scroll", responses=refusals(*READ))
async def scroll_points(
    collection: Name, body: ScrollBody, request: Request, services: ServicesOf
) -> PointList:
    """Return a page of all points in the order of their ids."""
    return await service.scrolled(service.collection_of(services, request, collection), body)


@router.post("/collections/{collection}/points/count", responses=refusals(*READ))
async def count_points(
    collection: Name, body: CountBody, request: Request, services: ServicesOf
) -> CountObject:
    """Count points exactly."""
    found = service.collection_of(services, request, collection)
    return CountObject(count=await found.count(body.filter))


@router.post("/collections/{collection}/points/delete", responses=refusals(*WRITE))
async def delete_points(
    collection: Name,
    body: DeleteBody,
    request: Request,
    services: ServicesOf,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Have points be no more, by their ids or by a filter."""
    found = service.collection_of(services, request, collection)
    return await service.deleted(found, body, wait=wait)


@router.post("/collections/{collection}/points/payload", responses=refusals(*WRITE))
async def set_payload(
    collection: Name,
    body: PayloadBody,
    request: Request,
    services: ServicesOf,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Set fields of points' payloads, by their ids or by a filter."""
    found = service.collection_of(services, request, collection)
    return await service.payload_set(found, body, wait=wait)


@router.post(
    "/collections/{collection}/search",
    responses=refusals(*EMBED),
    response_model_exclude_none=True,
)
async def search(
    collection: Name, body: SearchBody, request: Request, services: ServicesOf
) -> SearchObject:
    """Find points by meaning, by words, or by both."""
    searcher = service.searcher_of(services, request, collection)
    return await service.searched(services, searcher, body, tenant=service.tenant_of(request))


@router.post(
    "/collections/{collection}/search/batch",
    responses=refusals(*EMBED),
    response_model_exclude_none=True,
)
async def search_batch(
    collection: Name, body: BatchBody, request: Request, services: ServicesOf
) -> BatchObject:
    """Do several searches at once."""
    searcher = service.searcher_of(services, request, collection)
    return await service.searched_all(searcher, body, tenant=service.tenant_of(request))


@router.post(
    "/collections/{collection}/recommend",
    responses=refusals(*EMBED, PointNotFound),
    response_model_exclude_none=True,
)
async def recommend(
    collection: Name, body: RecommendBody, request: Request, services: ServicesOf
) -> SearchObject:
    """Find points that are like some and unlike others."""
    searcher = service.searcher_of(services, request, collection)
    return await service.recommended(searcher, body, tenant=service.tenant_of(request))


@router.post("/collections/{collection}/documents", status_code=202, responses=refusals(*WRITE))
async def add_documents(
    collection: Name,
    body: DocumentsBody,
    request: Request,
    services: ServicesOf,
    *,
    wait: Wait = False,
) -> OperationObject:
    """Take documents in, to be cut into chunks, embedded and found.

    One that is there already, just so, is left as it is. With `wait` it is answered once all are
    done, after a minute at the latest.
    """
    ingestion = service.ingestion_of(services, request, collection)
    return await service.ingested(ingestion, body, wait=wait)


@router.get(
    "/collections/{collection}/documents/{document}",
    responses=refusals(*READ, DocumentNotFound),
)
async def get_document(
    collection: Name,
    document: Annotated[str, Path(max_length=512)],
    request: Request,
    services: ServicesOf,
) -> DocumentObject:
    """Return a document as it was given, and how far it has come."""
    ingestion = service.ingestion_of(services, request, collection)
    return service.document_object(await ingestion.document(document))


@router.delete(
    "/collections/{collection}/documents/{document}",
    responses=refusals(*WRITE, DocumentNotFound),
)
async def delete_document(
    collection: Name,
    document: Annotated[str, Path(max_length=512)],
    request: Request,
    services: ServicesOf,
    *,
    wait: Wait = False,
) -> ChangeObject:
    """Forget a document and all its chunks."""
    ingestion = service.ingestion_of(services, request, collection)
    return await service.document_deleted(ingestion, document, wait=wait)


@router.get("/operations/{operation}", responses=refusals(*READ, OperationNotFound))
async def get_operation(
    operation: Annotated[str, Path(max_length=128)], services: ServicesOf
) -> OperationObject:
    """Say how far the documents of a call have come."""
    _, found = await services.collections.operation(operation)
    return service.operation_object(found)
