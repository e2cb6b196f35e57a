"""Points and queries of Qdrant's REST API, from JSON to the engine's objects and back."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import qdrant_edge as edge

from ullage_runtime.retrieval.edge.filters import filter_of
from ullage_runtime.retrieval.edge.refusals import Refused
from ullage_runtime.retrieval.stores.port import point_id

RRF_K: Final = 2
"""Qdrant's own default, which nobody expects; whoever asks should say k."""


def point_of(data: Mapping[str, Any]) -> edge.Point:
    """Return a point with its named vectors and its payload."""
    vectors = data.get("vector") or {}
    if not isinstance(vectors, Mapping):
        raise Refused("vector: must be an object of named vectors")
    named = {name: vector_of(each) for name, each in vectors.items()}
    return edge.Point(id_of(data["id"]), named, dict(data.get("payload") or {}))


def id_of(value: object) -> int | str:
    """Return a point's id: a number, or a UUID as text."""
    found = point_id(value)
    if found is None:
        raise Refused(f"id {value!r} is neither an unsigned number nor a UUID")
    return found


def ids_of(values: Sequence[object]) -> list[int | UUID | str]:
    """Return the ids of several points."""
    return [id_of(each) for each in values]


def vector_of(data: object) -> Any:
    """Return a dense or a sparse vector."""
    if isinstance(data, Mapping):
        return edge.SparseVector(data["indices"], data["values"])
    return data


def query_of(data: Mapping[str, Any]) -> edge.QueryRequest:
    """Return the engine's query of a `POST /points/query`."""
    return edge.QueryRequest(
        limit=int(data.get("limit") or 10),
        offset=int(data.get("offset") or 0),
        query=_scoring(data.get("query"), data.get("using")),
        prefetches=_prefetches(data.get("prefetch")),
        with_vector=data.get("with_vector") or False,
        with_payload=with_payload(data, default=False),
        filter=filter_of(data.get("filter")),
        score_threshold=data.get("score_threshold"),
        params=_params(data.get("params")),
    )


def with_payload(data: Mapping[str, Any], *, default: bool) -> Any:
    """Return which part of payloads is wanted."""
    wanted = data.get("with_payload")
    if isinstance(wanted, Mapping):
        include, exclude = wanted.get("include"), wanted.get("exclude")
        if exclude is not None:
            return edge.PayloadSelector.Exclude(exclude)
        return edge.PayloadSelector.Include(include or [])
    return default if wanted is None else wanted


def _prefetches(data: Any) -> list[edge.Prefetch] | None:
    if data is None:
        return None
    listed = data if isinstance(data, list) else [data]
    return [
        edge.Prefetch(
            limit=int(each.get("limit") or 10),
            query=_scoring(each.get("query"), each.get("using")),
            prefetches=_prefetches(each.get("prefetch")),
            params=_params(each.get("params")),
            filter=filter_of(each.get("filter")),
            score_threshold=each.get("score_threshold"),
        )
        for each in listed
    ]


def _scoring(data: Any, using: str | None) -> Any:
    if data is None:
        return None
    if isinstance(data, list):
        return edge.Query.Nearest(data, using=using)
    if isinstance(data, Mapping):
        if "nearest" in data:
            return edge.Query.Nearest(vector_of(data["nearest"]), using=using)
        if "indices" in data:
            return edge.Query.Nearest(vector_of(data), using=using)
        return _fusion(data)
    raise Refused("query: must be a vector or an object")


def _fusion(data: Mapping[str, Any]) -> Any:
    if data.get("fusion") == "dbsf":
        return edge.Fusion.Dbsf()
    if data.get("fusion") == "rrf" or "rrf" in data:
        rrf = data.get("rrf") or {}
        return edge.Fusion.Rrf(k=int(rrf.get("k") or RRF_K), weights=rrf.get("weights"))
    raise Refused("query: the embedded store knows nearest vectors, rrf and dbsf")


def _params(data: Mapping[str, Any] | None) -> edge.SearchParams | None:
    if not data:
        return None
    quantization = data.get("quantization")
    return edge.SearchParams(
        hnsw_ef=data.get("hnsw_ef"),
        exact=bool(data.get("exact")),
        indexed_only=bool(data.get("indexed_only")),
        quantization=quantization
        and edge.QuantizationSearchParams(
            ignore=bool(quantization.get("ignore")),
            rescore=quantization.get("rescore"),
            oversampling=quantization.get("oversampling"),
        ),
    )


def record_json(record: edge.Record) -> dict[str, Any]:
    """Return a stored point as REST writes it."""
    return {
        "id": id_json(record.id),
        "payload": record.payload,
        "vector": _vectors_json(record.vector),
    }


def scored_json(point: edge.ScoredPoint) -> dict[str, Any]:
    """Return a found point as REST writes it."""
    return {
        "id": id_json(point.id),
        "version": point.version,
        "score": point.score,
        "payload": point.payload,
        "vector": _vectors_json(point.vector),
    }


def id_json(value: object) -> int | str:
    """Return a point's id as REST writes it."""
    return value if isinstance(value, int) else str(value)


def _vectors_json(vectors: Any) -> Any:
    if not isinstance(vectors, Mapping):
        return vectors
    return {
        name: {"indices": each.indices, "values": each.values}
        if isinstance(each, edge.SparseVector)
        else each
        for name, each in vectors.items()
    }
