"""Points, queries and descriptions as Qdrant's client has them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ullage_runtime.retrieval.stores.port import (
    DENSE,
    SPARSE,
    Branch,
    Description,
    Distance,
    Layout,
    Point,
    Query,
    Sparse,
    StoreRefused,
)

if TYPE_CHECKING:  # importing it takes seconds and 80 MB, which a pod without collections saves
    from qdrant_client.http import models


def vectors_of(point: Point) -> dict[str, Any]:
    """Return the vectors of a point that is written."""
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[DENSE] = list(point.dense)
    if point.sparse is not None:
        vectors[SPARSE] = sparse_of(point.sparse)
    return vectors


def sparse_of(sparse: Sparse) -> "models.SparseVector":
    """Return a sparse vector."""
    from qdrant_client.http import models

    return models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))


def vector_of(branch: Branch) -> Any:
    """Return what a branch of a query looks for."""
    return sparse_of(branch.vector) if isinstance(branch.vector, Sparse) else list(branch.vector)


def params_of(branch: Branch, query: Query) -> "models.SearchParams | None":
    """Return how thoroughly a branch is searched."""
    from qdrant_client.http import models

    if branch.using == SPARSE or not query.params:
        return None
    return models.SearchParams.model_validate(query.params)


def quantization_of(given: Mapping[str, Any] | None) -> Any:
    """Return how vectors are made smaller."""
    from qdrant_client.http import models

    if given is None:
        return None
    kind = models.ScalarQuantization if "scalar" in given else models.BinaryQuantization
    return kind.model_validate(given)


def point_of(record: Any) -> Point:
    """Return a point of an answer."""
    vectors = record.vector if isinstance(record.vector, Mapping) else {}
    dense, sparse = vectors.get(DENSE), vectors.get(SPARSE)
    return Point(
        id=record.id,
        payload=record.payload or {},
        dense=None if dense is None else tuple(dense),
        sparse=None if sparse is None else Sparse(tuple(sparse.indices), tuple(sparse.values)),
    )


def description_of(collection: str, info: Any) -> Description:
    """Return what an answer says of a collection."""
    vectors = info.config.params.vectors
    dense = vectors.get(DENSE) if isinstance(vectors, Mapping) else None
    if dense is None:
        raise StoreRefused(
            f"collection {collection!r} has no vector named {DENSE!r}; it was made by somebody else"
        )
    quantization = info.config.quantization_config
    sparse = info.config.params.sparse_vectors or {}
    return Description(
        layout=Layout(
            dimensions=dense.size,
            distance=Distance(dense.distance.value),
            has_sparse=SPARSE in sparse,
            has_idf=SPARSE not in sparse or sparse[SPARSE].modifier == "idf",
            hnsw={
                "m": info.config.hnsw_config.m,
                "ef_construct": info.config.hnsw_config.ef_construct,
            },
            quantization=quantization and quantization.model_dump(mode="json", exclude_none=True),
            metadata=info.config.metadata or {},
        ),
        points=info.points_count or 0,
        indexed_vectors=info.indexed_vectors_count or 0,
        is_optimised=info.status == "green",
        deferred_points=info.update_queue.deferred_points if info.update_queue else None,
        payload_indexes={
            name: each.data_type.value for name, each in (info.payload_schema or {}).items()
        },
    )
