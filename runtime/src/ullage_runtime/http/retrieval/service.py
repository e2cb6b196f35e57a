"""From requests about collections to their answers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ullage_api.wire.pod_report import CollectionState
from ullage_runtime.core.errors import InvalidRequest, PointNotFound, ServingError
from ullage_runtime.core.vectors import floats
from ullage_runtime.http.retrieval.objects import (
    BatchObject,
    ChangeObject,
    CollectionObject,
    DocumentObject,
    HitObject,
    OperationObject,
    PartObject,
    PointList,
    PointObject,
    SearchObject,
    SparseObject,
)
from ullage_runtime.http.retrieval.recall import recalled
from ullage_runtime.http.retrieval.schema import (
    BatchBody,
    DeleteBody,
    DocumentsBody,
    PayloadBody,
    RecommendBody,
    ScrollBody,
    SearchBody,
    UpsertBody,
)
from ullage_runtime.http.services import Services
from ullage_runtime.retrieval.collection import Change, Collection
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.held import Held
from ullage_runtime.retrieval.ingest.documents import Document, Kept, Operation, Original
from ullage_runtime.retrieval.ingest.ingestion import Ingestion, checked_metadata
from ullage_runtime.retrieval.points import checked_id, checked_ids, checked_payload, shown_payload
from ullage_runtime.retrieval.searcher import Searcher
from ullage_runtime.retrieval.searching import Findings, Hit, towards
from ullage_runtime.retrieval.stores.port import Point

OPERATION_WAIT_SECONDS: Final = 60.0


async def upserted(
    collection: Collection, body: UpsertBody, *, wait: bool, tenant: str, urgent: bool = True
) -> ChangeObject:
    """Write points; those that are not urgent let whoever searches go first."""
    points = [each.point(i, collection.layout) for i, each in enumerate(body.points)]
    ids = [point.id for point in points]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise InvalidRequest(f"points has id {twice!r} more than once", param="points")
    return _change(await collection.upsert(points, wait=wait, tenant=tenant, urgent=urgent))


async def one_point(collection: Collection, point_id: str) -> PointObject:
    """Return a point with its vectors; raises PointNotFound."""
    given: object = int(point_id) if point_id.isascii() and point_id.isdigit() else point_id
    found = await collection.retrieve([checked_id(given, "id")], vectors=True)
    if not found:
        raise PointNotFound(f"collection {collection.name!r} has no point {point_id}", param="id")
    return point_object(found[0])


async def scrolled(collection: Collection, body: ScrollBody) -> PointList:
    """Return a page of points."""
    after = None if body.after is None else checked_id(body.after, "after")
    points, following = await collection.scroll(
        after=after, limit=body.limit, where=body.filter, vectors=body.with_vectors
    )
    return PointList(points=[point_object(each) for each in points], next=following)


async def payload_set(collection: Collection, body: PayloadBody, *, wait: bool) -> ChangeObject:
    """Change points' payloads."""
    body.check()
    change = await collection.set_payload(
        body.payload,
        ids=None if body.ids is None else checked_ids(body.ids, "ids"),
        where=body.filter,
        replace_all=body.replace,
        wait=wait,
    )
    return _change(change)


async def deleted(collection: Collection, body: DeleteBody, *, wait: bool) -> ChangeObject:
    """Have points be no more."""
    body.check()
    if body.ids is not None:
        return _change(await collection.delete(checked_ids(body.ids, "ids"), wait=wait))
    return _change(await collection.delete_where(body.filter or {}, wait=wait))


async def searched(
    services: Services, searcher: Searcher, body: SearchBody, *, tenant: str
) -> SearchObject:
    """Search, unless the very same was found before."""
    search = body.search(searcher.collection)

    async def find() -> SearchObject:
        return found_object(await searcher.search(search, tenant=tenant))

    return await recalled(services, searcher.collection, search, find, tenant=tenant)


async def searched_all(searcher: Searcher, body: BatchBody, *, tenant: str) -> BatchObject:
    """Do several searches."""
    searches = [each.search(searcher.collection) for each in body.searches]
    found = await searcher.search_all(searches, tenant=tenant)
    return BatchObject(results=[found_object(each) for each in found])


async def recommended(searcher: Searcher, body: RecommendBody, *, tenant: str) -> SearchObject:
    """Find what is like some points and unlike others."""
    positive = await _dense_of(searcher.collection, body.positive, "positive")
    negative = await _dense_of(searcher.collection, body.negative, "negative")
    search = body.search(searcher.collection, list(towards(positive, negative)))
    return found_object(await searcher.search(search, tenant=tenant))


async def _dense_of(
    collection: Collection, ids: Sequence[object], where: str
) -> list[tuple[float, ...]]:
    """Return points' dense vectors; raises PointNotFound or InvalidRequest."""
    wanted = checked_ids(ids, where)
    found = {point.id: point for point in await collection.retrieve(wanted, vectors=True)}
    vectors = []
    for each in wanted:
        if each not in found:
            raise PointNotFound(f"collection {collection.name!r} has no point {each}", param=where)
        dense = found[each].dense
        if dense is None:
            raise InvalidRequest(f"{where}: point {each} has no dense vector", param=where)
        vectors.append(dense)
    return vectors


async def ingested(
    ingestion: Ingestion,
    body: DocumentsBody,
    *,
    wait: bool,
    originals: Mapping[str, Original] = MappingProxyType({}),
) -> OperationObject:
    """Take documents in."""
    documents = [
        Document(
            each.id,
            each.text,
            checked_metadata(
                checked_payload(each.metadata, f"documents[{index}].metadata"),
                f"documents[{index}].metadata",
            ),
        )
        for index, each in enumerate(body.documents)
    ]
    ids = [each.id for each in documents]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise InvalidRequest(f"documents has id {twice!r} more than once", param="documents")
    operation = await ingestion.accept(documents, originals)
    if wait:
        operation = await ingestion.finished(operation.id, OPERATION_WAIT_SECONDS) or operation
    return operation_object(operation)


async def document_deleted(ingestion: Ingestion, document_id: str, *, wait: bool) -> ChangeObject:
    """Forget a document and its chunks."""
    return _change(await ingestion.delete(document_id, wait=wait))


async def described(collections: Collections, held: Held) -> CollectionObject:
    """Return how a collection stands, also while its store is away."""
    if held.state is CollectionState.FAILED or held.collection is None:
        return _not_ready(held, held.problem)
    try:
        return await _described(collections, held)
    except ServingError as error:
        return _not_ready(held, error.message)


def _not_ready(held: Held, why: str) -> CollectionObject:
    return CollectionObject(
        name=held.desired.name,
        ready=False,
        message=why,
        model=held.model,
        aliases=list(held.aliases),
    )


async def _described(collections: Collections, held: Held) -> CollectionObject:
    name, aliases = held.desired.name, list(held.aliases)
    collection = collections.find(name)
    ingestion = collections.ingestion(name)
    collections.refresh(held)
    count = await collection.count()
    with told(name):
        found = await collection.store.describe(collection.physical)
    return CollectionObject(
        name=name,
        ready=True,
        message=_advice(held),
        model=collection.model,
        aliases=aliases,
        dimensions=collection.layout.dimensions,
        points=count,
        documents=await ingestion.count(),
        indexed_vectors=found.indexed_vectors if found else None,
        pending_changes=collection.changes.behind,
        epoch=collection.changes.routing.epoch,
    )


def _advice(held: Held) -> str:
    if not held.differences:
        return held.alias_problem
    return f"serves what it has; a reindex is needed: {'; '.join(held.differences)}"


def point_object(point: Point) -> PointObject:
    """Return a point as clients see it."""
    sparse = point.sparse
    return PointObject(
        id=point.id,
        payload=shown_payload(point.payload),
        dense=None if point.dense is None else list(point.dense),
        sparse=sparse and SparseObject(indices=list(sparse.indices), values=list(sparse.values)),
        colbert=point.colbert and [list(floats(row)) for row in point.colbert.rows],
    )


def operation_object(operation: Operation) -> OperationObject:
    """Return an operation as clients see it."""
    return OperationObject(
        id=operation.id,
        status="running" if operation.finished is None else "completed",
        total=operation.total,
        done=operation.done,
        unchanged=operation.unchanged,
        superseded=operation.superseded,
        failed=operation.failed,
        pending=operation.pending,
        chunks=operation.chunks,
        errors=operation.errors,
    )


def document_object(kept: Kept) -> DocumentObject:
    """Return a document as clients see it."""
    return DocumentObject(
        id=kept.document.id,
        status=kept.state.value,
        chunks=kept.chunks,
        error=kept.error,
        text=kept.document.text,
        original=kept.original,
        metadata=kept.document.metadata,
    )


def _change(change: Change) -> ChangeObject:
    return ChangeObject(
        status="applied" if change.is_applied else "accepted",
        version=change.version,
        points=change.count,
    )


def found_object(findings: Findings) -> SearchObject:
    """Return findings as clients see them."""
    return SearchObject(
        results=[_hit(each) for each in findings.hits],
        mode=findings.mode.value,
        degraded=list(findings.degraded),
        ranked_by=findings.ranked_by,
        seconds=dict(findings.seconds),
    )


def _hit(hit: Hit) -> HitObject:
    parts = hit.parts
    return HitObject(
        id=hit.id,
        score=hit.score,
        payload=hit.payload,
        explain=None
        if parts is None
        else {name: PartObject(rank=p.rank, score=p.score) for name, p in parts.items()},
    )
