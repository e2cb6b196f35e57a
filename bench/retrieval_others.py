"""What searches cost elsewhere: qdrant-client's local mode, and the bare engine in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from bench.retrieval_data import DIMENSIONS, SHELVES, Corpus

Ask = Callable[[list[float], int], Any]
LIMIT: Final = 10
LEAST: Final = 20
"""Searches of each kind that are timed, at least: local mode looks at every vector."""


def beside(folder: Path, points: int, seconds: float) -> dict[str, Any]:
    """Return figures of dense and filtered searches by one client, without HTTP."""
    return {
        "bare engine": _timed(*_bare(folder, points), seconds),
        "local mode": _timed(*_local(points), seconds),
    }


def _timed(dense: Ask, filtered: Ask, seconds: float) -> dict[str, dict[str, float]]:
    return {name: _of(ask, seconds) for name, ask in (("dense", dense), ("filtered", filtered))}


def _of(ask: Ask, seconds: float) -> dict[str, float]:
    vectors = Corpus(seed=10).vectors(1000).tolist()
    took: list[float] = []
    start = time.perf_counter()
    while len(took) < LEAST or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        ask(vectors[len(took) % len(vectors)], len(took) % SHELVES)
        took.append(time.perf_counter() - began)
    half, most = np.percentile(took, [50, 95]) * 1000
    rate = len(took) / sum(took)
    return {
        "p50_ms": round(float(half), 2),
        "p95_ms": round(float(most), 2),
        "a_second": round(rate, 1),
    }


def _bare(folder: Path, points: int) -> tuple[Ask, Ask]:
    """Return searches of the engine as Balanced sets it up."""
    from ullage_api.kinds.vector_collection import IndexProfile
    from ullage_runtime.retrieval.edge import layout
    from ullage_runtime.retrieval.edge.queries import query_of
    from ullage_runtime.retrieval.profiles import profile_settings

    settings = profile_settings(IndexProfile.BALANCED, DIMENSIONS)
    config = layout.config_of(
        {
            "vectors": {"dense": {"size": DIMENSIONS, "distance": "Cosine"}},
            "hnsw_config": dict(settings.hnsw),
            "quantization_config": settings.quantization,
        }
    )
    place = folder / "bare"
    place.mkdir()
    shard = edge.EdgeShard.create(str(place), config)
    for first, vectors, _ in Corpus().batches(points):
        shard.update(
            edge.UpdateOperation.upsert_points(
                [
                    edge.Point(first + n, {"dense": vector}, {"shelf": n % SHELVES})
                    for n, vector in enumerate(vectors.tolist())
                ]
            )
        )
    schema = layout.schema_of("integer")
    shard.update(edge.UpdateOperation.create_field_index("shelf", schema))
    shard.optimize()

    def ask(vector: list[float], where: Any) -> Any:
        body = {
            "query": vector,
            "using": "dense",
            "limit": LIMIT,
            "params": dict(settings.search),
            "filter": where,
            "with_payload": True,
        }
        return shard.query(query_of(body))

    def filtered(vector: list[float], shelf: int) -> Any:
        return ask(vector, {"must": [{"key": "shelf", "match": {"value": shelf}}]})

    return (lambda vector, _: ask(vector, None)), filtered


def _local(points: int) -> tuple[Ask, Ask]:
    client = QdrantClient(":memory:")
    client.create_collection(
        "c",
        vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE),
    )
    for first, vectors, _ in Corpus().batches(points):
        client.upsert(
            "c",
            [
                models.PointStruct(id=first + n, vector=vector, payload={"shelf": n % SHELVES})
                for n, vector in enumerate(vectors.tolist())
            ],
        )

    def ask(vector: list[float], where: models.Filter | None) -> Any:
        return client.query_points("c", query=vector, query_filter=where, limit=LIMIT)

    def filtered(vector: list[float], shelf: int) -> Any:
        match = models.FieldCondition(key="shelf", match=models.MatchValue(value=shelf))
        return ask(vector, models.Filter(must=[match]))

    return (lambda vector, _: ask(vector, None)), filtered
