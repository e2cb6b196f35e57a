"""What a collection's index is built with, and how it is searched, by its profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ullage_api.kinds.vector_collection import IndexProfile, SparseType, VectorCollectionSpec
from ullage_runtime.retrieval.stores.port import Distance, Layout

BINARY_DIMENSIONS: Final = 1024
"""Vectors that are shorter lose too much when a number becomes one bit."""

_INT8: Final = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}
_BINARY: Final = {"binary": {"always_ram": True}}
_RESCORED: Final = {"rescore": True, "oversampling": 2.0}


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """One profile, for vectors of one size."""

    hnsw: Mapping[str, int]
    quantization: Mapping[str, Any] | None
    search: Mapping[str, Any] = field(default_factory=dict)
    """What a query asks for; it can change at any time."""


def profile_settings(profile: IndexProfile, dimensions: int) -> ProfileSettings:
    """Return what a profile means for vectors of a size."""
    match profile:
        case IndexProfile.HIGH_ACCURACY:
            return ProfileSettings({"m": 32, "ef_construct": 256}, None, {"hnsw_ef": 256})
        case IndexProfile.BALANCED:
            search = {"hnsw_ef": 128, "quantization": _RESCORED}
            return ProfileSettings({"m": 16, "ef_construct": 128}, _INT8, search)
        case IndexProfile.FAST_QUERY:
            search = {"hnsw_ef": 64, "quantization": _RESCORED}
            quantization = _BINARY if dimensions >= BINARY_DIMENSIONS else _INT8
            return ProfileSettings({"m": 16, "ef_construct": 100}, quantization, search)


def profile_of(spec: VectorCollectionSpec) -> IndexProfile:
    """Return a collection's profile."""
    return spec.profile or IndexProfile.BALANCED


def layout_of(spec: VectorCollectionSpec, dimensions: int) -> Layout:
    """Return how a collection is laid out for a model's vectors."""
    settings = profile_settings(profile_of(spec), dimensions)
    distance = spec.dense.distance.value if spec.dense else Distance.COSINE.value
    return Layout(
        dimensions=dimensions,
        distance=Distance(distance),
        has_sparse=spec.sparse is not SparseType.NONE,
        has_idf=spec.sparse is not SparseType.MODEL,
        hnsw=settings.hnsw,
        quantization=settings.quantization,
    )


def differences(wanted: Layout, found: Layout) -> list[str]:
    """Return what only a reindex can change, each with both values."""
    pairs = {
        "dimensions": (wanted.dimensions, found.dimensions),
        "distance": (wanted.distance.value, found.distance.value),
        "sparse vectors": (_sparse(wanted), _sparse(found)),
        "hnsw": (dict(wanted.hnsw), {k: found.hnsw.get(k) for k in wanted.hnsw}),
        "quantization": (wanted.quantization, found.quantization),
    }
    return [
        f"{name} is {has}, wanted is {wants}"
        for name, (wants, has) in pairs.items()
        if wants != has
    ]


def _sparse(layout: Layout) -> str:
    if not layout.has_sparse:
        return SparseType.NONE.value
    return SparseType.BM25.value if layout.has_idf else SparseType.MODEL.value
