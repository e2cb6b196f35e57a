"""Points, queries and layouts in the words of Qdrant's client, and back."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ullage_runtime.core.pooled import TokenVectors
from ullage_runtime.core.vectors import floats
from ullage_runtime.retrieval.stores.port import (
    COLBERT,
    DENSE,
    LARGEST_POINT,
    SPARSE,
    Branch,
    Description,
    Distance,
    Fusion,
    Layout,
    Point,
    Query,
    Sparse,
    StoreRefused,
)

if TYPE_CHECKING:  # importing it takes seconds and 80 MB, which a pod without collections saves
    from qdrant_client.http import models

_AS_THEY_ARE: Final = {"quantization": {"ignore": True}}
"""What few candidates are scored by is read as it was written."""


def portions(points: Sequence[Point], most: int) -> Iterator[list[Point]]:
    """Cut points into requests that a server takes, of so many points at most."""
    portion: list[Point] = []
    numbers = 0
    for point in points:
        if portion and (len(portion) == most or numbers + point.numbers > LARGEST_POINT):
            yield portion
            portion, numbers = [], 0
        portion.append(point)
        numbers += point.numbers
    if portion:
        yield portion


def dense_params_of(layout: Layout) -> "dict[str, models.VectorParams]":
    """Return the vectors of a collection but for the sparse ones.

    Tokens' vectors score what was found by others, so they have no index, lie on the disk and are
    half as exact: they are by far the most of what there is.
    """
    from qdrant_client.http import models

    params = {
        DENSE: models.VectorParams(
            size=layout.dimensions, distance=models.Distance(layout.distance.value)
        )
    }
    if layout.token_width:
        params[COLBERT] = models.VectorParams(
            size=layout.token_width,
            distance=models.Distance.DOT,
            hnsw_config=models.HnswConfigDiff(m=0),
            on_disk=True,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            datatype=models.Datatype.FLOAT16,
        )
    return params


def point_json(point: Point) -> dict[str, Any]:
    """Return a point as REST takes it."""
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[DENSE] = point.dense
    if point.sparse is not None:
        vectors[SPARSE] = _sparse(point.sparse)
    if point.colbert is not None:
        vectors[COLBERT] = _rows(point.colbert)
    return {"id": point.id, "vector": vectors, "payload": point.payload}


def query_json(query: Query) -> dict[str, Any]:
    """Return a query as REST takes it."""
    if len(query.branches) == 1:
        (branch,) = query.branches
        return {**_branch_json(branch, query), "limit": query.limit, "with_payload": True}
    rrf = {"rrf": {"k": query.rrf_k}}
    return {
        "prefetch": [_branch_json(branch, query) for branch in query.branches],
        "query": rrf if query.fusion is Fusion.RRF else {"fusion": "dbsf"},
        "limit": query.limit,
        "with_payload": True,
    }


def _branch_json(branch: Branch, query: Query) -> dict[str, Any]:
    asked: dict[str, Any] = {"using": branch.using, "limit": branch.limit}
    match branch.vector:
        case Sparse():
            asked["query"] = _sparse(branch.vector)
        case TokenVectors():
            asked |= {"query": _rows(branch.vector), "params": _AS_THEY_ARE}
        case _:
            asked |= {"query": branch.vector, "params": query.params or None}
    if branch.threshold is not None:
        asked["score_threshold"] = branch.threshold
    if query.filter:
        asked["filter"] = query.filter
    return asked


def quantization_of(given: Mapping[str, Any] | None) -> Any:
    """Return how vectors are made small."""
    from qdrant_client.http import models

    if given is None:
        return None
    kind = models.ScalarQuantization if "scalar" in given else models.BinaryQuantization
    return kind.model_validate(given)


def point_of(record: Any) -> Point:
    """Return a point that was read."""
    vectors = record.vector if isinstance(record.vector, Mapping) else {}
    dense, sparse, rows = vectors.get(DENSE), vectors.get(SPARSE), vectors.get(COLBERT)
    return Point(
        id=record.id,
        payload=record.payload or {},
        dense=None if dense is None else tuple(dense),
        sparse=None if sparse is None else Sparse(tuple(sparse.indices), tuple(sparse.values)),
        colbert=token_vectors(rows) if rows else None,
    )


def token_vectors(rows: Sequence[Sequence[float]]) -> TokenVectors:
    """Return the vectors of a text's tokens, of which there is at least one."""
    return TokenVectors(b"".join(array("f", row).tobytes() for row in rows), len(rows[0]))


def description_of(collection: str, info: Any) -> Description:
    """Return what a store says of a collection."""
    vectors = info.config.params.vectors
    dense = vectors.get(DENSE) if isinstance(vectors, Mapping) else None
    if dense is None:
        raise StoreRefused(
            f"collection {collection!r} has no vector named {DENSE!r}; it was made by somebody else"
        )
    colbert = vectors.get(COLBERT)
    quantization = info.config.quantization_config
    sparse = info.config.params.sparse_vectors or {}
    return Description(
        layout=Layout(
            dimensions=dense.size,
            distance=Distance(dense.distance.value),
            has_sparse=SPARSE in sparse,
            has_idf=SPARSE not in sparse or sparse[SPARSE].modifier == "idf",
            token_width=0 if colbert is None else colbert.size,
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
        is_put_off=info.status == "grey",
    )


def _sparse(sparse: Sparse) -> dict[str, Any]:
    return {"indices": sparse.indices, "values": sparse.values}


def _rows(tokens: TokenVectors) -> list[list[float]]:
    return [list(floats(row)) for row in tokens.rows]
