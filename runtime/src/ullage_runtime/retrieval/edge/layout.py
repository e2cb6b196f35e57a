"""A collection's configuration: Qdrant's JSON, and the engine's objects made of it."""

from collections.abc import Mapping
from typing import Any, Final

import qdrant_edge as edge

from ullage_runtime.retrieval.edge.refusals import Refused

HNSW: Final[Mapping[str, Any]] = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
OPTIMIZERS: Final[Mapping[str, Any]] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
    "indexing_threshold": 10_000,
}
"""What Qdrant takes where nothing is said."""

_DISTANCES: Final = {each: getattr(edge.Distance, each) for each in ("Cosine", "Dot", "Euclid")}
_DATATYPES: Final = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
_SCHEMAS: Final = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "uuid": edge.PayloadSchemaType.Uuid,
    "text": edge.PayloadSchemaType.Text,
}

DISABLED: Final = "Disabled"
"""What takes a quantization away."""

Layout = dict[str, Any]
"""The body of `PUT /collections/{name}`, as it was given and changed since."""


def merged(layout: Layout, change: Mapping[str, Any]) -> Layout:
    """Return the layout with a change laid over it; None takes nothing away, `Disabled` does."""
    result = dict(layout)
    for name, value in change.items():
        if value == DISABLED:
            result.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merged(result[name], value)
        elif value is not None:
            result[name] = value
    return result


def config_of(layout: Mapping[str, Any]) -> edge.EdgeConfig:
    """Return the engine's configuration; raises Refused for what it cannot do."""
    vectors = {name: _dense(name, each) for name, each in (layout.get("vectors") or {}).items()}
    sparse = {name: _sparse(each) for name, each in (layout.get("sparse_vectors") or {}).items()}
    if not vectors and not sparse:
        raise Refused("vectors: a collection needs at least one vector")
    optimizers = _optimizers(layout)
    return edge.EdgeConfig(
        vectors=vectors or None,
        sparse_vectors=sparse or None,
        hnsw_config=_hnsw({**HNSW, **_given(layout.get("hnsw_config"))}),
        quantization_config=_quantization(layout.get("quantization_config")),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers["deleted_threshold"],
            vacuum_min_vector_number=optimizers["vacuum_min_vector_number"],
            default_segment_number=optimizers["default_segment_number"],
            indexing_threshold=optimizers["indexing_threshold"],
        ),
        wal_enabled=True,
    )


def indexable(layout: Mapping[str, Any]) -> int:
    """Return how many points are enough for the engine to index them."""
    threshold = int(_optimizers(layout)["indexing_threshold"])
    widest = max((int(each["size"]) for each in (layout.get("vectors") or {}).values()), default=1)
    return threshold * 1024 // (4 * widest)


def schema_of(name: object) -> edge.PayloadSchemaType:
    """Return the type of a payload index."""
    named = name.get("type") if isinstance(name, Mapping) else name
    if named not in _SCHEMAS:
        raise Refused(f"field_schema {named!r} is not one of {sorted(_SCHEMAS)}")
    return _SCHEMAS[str(named)]


def schema_name(kind: edge.PayloadSchemaType) -> str:
    """Return how REST writes the type of a payload index."""
    return next(name for name, each in _SCHEMAS.items() if each == kind)


def _optimizers(layout: Mapping[str, Any]) -> dict[str, Any]:
    return {**OPTIMIZERS, **_given(layout.get("optimizers_config"))}


def _given(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (settings or {}).items() if value is not None}


def _dense(name: str, given: Mapping[str, Any]) -> edge.EdgeVectorParams:
    distance = given.get("distance")
    if distance not in _DISTANCES:
        raise Refused(f"vectors.{name}.distance {distance!r} is not one of {sorted(_DISTANCES)}")
    multi, hnsw = given.get("multivector_config"), given.get("hnsw_config")
    return edge.EdgeVectorParams(
        size=int(given["size"]),
        distance=_DISTANCES[distance],
        on_disk=given.get("on_disk"),
        multivector_config=multi and edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=_datatype(name, given.get("datatype")),
        hnsw_config=hnsw and _hnsw({**HNSW, **_given(hnsw)}),
    )


def _datatype(name: str, given: str | None) -> edge.VectorStorageDatatype | None:
    if given is not None and given not in _DATATYPES:
        raise Refused(f"vectors.{name}.datatype {given!r} is not one of {sorted(_DATATYPES)}")
    return None if given is None else _DATATYPES[given]


def _sparse(given: Mapping[str, Any] | None) -> edge.EdgeSparseVectorParams:
    has_idf = (given or {}).get("modifier") == "idf"
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if has_idf else None)


def _hnsw(given: Mapping[str, Any]) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=given["m"],
        ef_construct=given["ef_construct"],
        full_scan_threshold=given["full_scan_threshold"],
        max_indexing_threads=given.get("max_indexing_threads") or 0,
        on_disk=given.get("on_disk"),
    )


def _quantization(given: Mapping[str, Any] | None) -> Any:
    if not given:
        return None
    if given.get("scalar"):
        scalar = given["scalar"]
        return edge.ScalarQuantizationConfig(
            edge.ScalarType.Int8,
            quantile=scalar.get("quantile"),
            always_ram=scalar.get("always_ram"),
        )
    if given.get("binary"):
        return edge.BinaryQuantizationConfig(always_ram=given["binary"].get("always_ram"))
    raise Refused("quantization_config: the embedded store knows scalar and binary")
