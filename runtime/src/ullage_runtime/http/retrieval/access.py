"""Which collection a request means, and whether its key may use it.

Whoever may use a collection's model may use the collection; nobody is told of others.
"""

from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import Request

from ullage_runtime.core.errors import InvalidRequest, OperationNotFound
from ullage_runtime.http.auth import Key
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.retrieval.schema import Flat
from ullage_runtime.http.services import Services, ServicesOf
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.held import Held
from ullage_runtime.retrieval.ingest.documents import Operation
from ullage_runtime.retrieval.ingest.ingestion import Ingestion
from ullage_runtime.retrieval.searcher import Searcher

Name = Annotated[str, Path(min_length=1, max_length=128)]


def tenant_of(request: Request) -> str:
    """Return who asks."""
    return _key(request).id


def usable(services: Services, request: Request) -> list[str]:
    """Return the names of the collections that the caller may use."""
    key, collections = _key(request), services.collections
    return [n for n in collections.names() if key.may_use(_model(collections.held(n)))]


def held_of(services: Services, request: Request, name: str) -> Held:
    """Return a collection that the caller may use, ready or not.

    Raises Forbidden or CollectionNotFound.
    """
    held = services.collections.held(name, known=lambda: usable(services, request))
    _key(request).check(_model(held))
    return held


def collection_of(services: Services, request: Request, name: str) -> Collection:
    """Return a collection that the caller may use; raises CollectionUnavailable too."""
    return services.collections.find(held_of(services, request, name).desired.name)


def ingestion_of(services: Services, request: Request, name: str) -> Ingestion:
    """Return a collection's ingestion, likewise."""
    return services.collections.ingestion(held_of(services, request, name).desired.name)


def searcher_of(services: Services, request: Request, name: str) -> Searcher:
    """Return what searches a collection, likewise."""
    return services.collections.searcher(held_of(services, request, name).desired.name)


async def operation_of(
    services: Services, request: Request, operation_id: str
) -> tuple[str, Operation]:
    """Return an operation and its collection's name; raises OperationNotFound."""
    name, found = await services.collections.operation(operation_id)
    if name not in usable(services, request):
        raise OperationNotFound(f"there is no operation {operation_id!r}")
    return name, found


async def named(services: Services, request: Request, flat: Flat) -> str:
    """Return the name of the collection that is meant; raises OperationNotFound."""
    if flat.collection is not None:
        return held_of(services, request, flat.collection).desired.name
    if flat.operation_uuid is not None:
        name, _ = await operation_of(services, request, flat.operation_uuid)
        return name
    if (default := services.limits.default_collection) is not None:
        return held_of(services, request, default).desired.name
    known = ", ".join(usable(services, request)) or "none"
    raise InvalidRequest(
        f"say which collection is meant, as there is no default; there are: {known}",
        param="collection",
    )


def _key(request: Request) -> Key:
    key: Key = request.scope[KEY]
    return key


def _model(held: Held) -> str:
    return held.desired.spec.embedding.model_deployment


async def _collection(collection: Name, request: Request, services: ServicesOf) -> Collection:
    return collection_of(services, request, collection)


async def _ingestion(collection: Name, request: Request, services: ServicesOf) -> Ingestion:
    return ingestion_of(services, request, collection)


async def _searcher(collection: Name, request: Request, services: ServicesOf) -> Searcher:
    return searcher_of(services, request, collection)


async def _tenant(request: Request) -> str:
    return tenant_of(request)


CollectionOf = Annotated[Collection, Depends(_collection)]
IngestionOf = Annotated[Ingestion, Depends(_ingestion)]
SearcherOf = Annotated[Searcher, Depends(_searcher)]
"""What the path names."""
TenantOf = Annotated[str, Depends(_tenant)]
