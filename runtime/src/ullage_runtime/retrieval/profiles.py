"""What a collection's index is built with, and how it is searched, by its profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from ullage_api.kinds.index_overrides import (
    IndexOverrides,
    QuantizationOverrides,
    SearchParams,
)
from ullage_api.kinds.vector_collection import (
    IndexProfile,
    MultivectorType,
    SparseType,
    VectorCollectionSpec,
)
from ullage_runtime.retrieval.stores.port import Distance, Layout

ANY_WIDTH: Final = 1
"""Stands for how wide tokens' vectors would be where only the model knows."""
BINARY_DIMENSIONS: Final = 1024
"""Vectors that are shorter lose too much when a number becomes one bit."""

_INT8: Final[dict[str, dict[str, Any]]] = {
    "scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}
}
_BINARY: Final[dict[str, dict[str, Any]]] = {"binary": {"always_ram": True}}
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


def settings_of(spec: VectorCollectionSpec, dimensions: int) -> ProfileSettings:
    """Return what a collection's profile means for vectors of a size, with what it overrides."""
    settings = profile_settings(profile_of(spec), dimensions)
    given = spec.overrides or IndexOverrides()
    hnsw = _given(given.hnsw_config)
    return ProfileSettings(
        hnsw={**settings.hnsw, **hnsw},
        quantization=settings.quantization
        if given.quantization_config is None
        else _quantization(given.quantization_config),
        search=_search(settings.search, given.params),
    )


def _given(overrides: BaseModel | None) -> dict[str, Any]:
    return {} if overrides is None else overrides.model_dump(mode="json", exclude_none=True)


def _quantization(overrides: QuantizationOverrides) -> Mapping[str, Any]:
    """Return how vectors are kept small; what is left out is as in the profiles."""
    if overrides.binary is not None:
        return {"binary": {**_BINARY["binary"], **_given(overrides.binary)}}
    scalar = {**_INT8["scalar"], **_given(overrides.scalar)}
    return {"scalar": {**scalar, "quantile": float(scalar["quantile"])}}


def _search(profile: Mapping[str, Any], overrides: SearchParams | None) -> Mapping[str, Any]:
    given = _given(overrides)
    use = {**profile.get("quantization", {}), **given.get("quantization", {})}
    if "oversampling" in use:
        use["oversampling"] = float(use["oversampling"])
    return {**profile, **given, **({"quantization": use} if use else {})}


def layout_of(spec: VectorCollectionSpec, dimensions: int, token_width: int = 0) -> Layout:
    """Return how a collection is laid out for the vectors of a model and of its tokens."""
    settings = settings_of(spec, dimensions)
    distance = spec.dense.distance.value if spec.dense else Distance.COSINE.value
    return Layout(
        dimensions=dimensions,
        distance=Distance(distance),
        has_sparse=spec.sparse is not SparseType.NONE,
        has_idf=spec.sparse is not SparseType.MODEL,
        token_width=token_width if spec.multivector is MultivectorType.COLBERT else 0,
        hnsw=settings.hnsw,
        quantization=settings.quantization,
    )


def differences(wanted: Layout, found: Layout) -> list[str]:
    """Return what only a reindex can change, each with both values."""
    pairs = {
        "dimensions": (wanted.dimensions, found.dimensions),
        "distance": (wanted.distance.value, found.distance.value),
        "sparse vectors": (_sparse(wanted), _sparse(found)),
        "vectors of tokens": (_multivector(wanted), _multivector(found)),
        "hnsw": (dict(wanted.hnsw), {k: found.hnsw.get(k) for k in wanted.hnsw}),
        "quantization": (wanted.quantization, found.quantization),
    }
    return [
        f"{name} is {has}, wanted is {wants}"
        for name, (wants, has) in pairs.items()
        if wants != has
    ]


def _multivector(layout: Layout) -> str:
    return (MultivectorType.COLBERT if layout.token_width else MultivectorType.NONE).value


def _sparse(layout: Layout) -> str:
    if not layout.has_sparse:
        return SparseType.NONE.value
    return SparseType.BM25.value if layout.has_idf else SparseType.MODEL.value
