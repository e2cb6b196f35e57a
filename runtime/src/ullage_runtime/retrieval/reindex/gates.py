"""What a worker asks about both sides of a reindex, to judge the target."""

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.core.pooled import Role
from ullage_runtime.retrieval.collection import TEXT
from ullage_runtime.retrieval.embedding import Embedded
from ullage_runtime.retrieval.founding import wanted_fields
from ullage_runtime.retrieval.log.changes import live
from ullage_runtime.retrieval.profiles import differences, layout_of, settings_of
from ullage_runtime.retrieval.recall import share
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.remaking import EMBEDDED_AT_ONCE, TENANT
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.reindex.wire import (
    Hashes,
    PointHash,
    PointVersion,
    Probes,
    Schema,
    Versions,
)
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    VERSION,
    Branch,
    Found,
    Point,
    PointId,
    Query,
)

SETTLE_SECONDS: Final = 30.0
DEPTH: Final = 10
"""Nearest points that are compared."""
PROBE_SECONDS: Final = 30.0
TEXT_PROBES: Final = 50
"""Texts that are embedded to be looked for: each costs what a search costs."""
DIGITS: Final = 4
"""Significant digits of a vector's numbers that two stores of it agree on."""
_EXACT: Final = {"exact": True, "quantization": {"ignore": True}}


def _sides(record: JobRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for each in (record.source, record.target) if each))


def _checked(record: JobRecord, physical: str) -> str:
    if physical not in _sides(record):
        raise InvalidRequest(
            f"{physical!r} is no side of the job; it has {', '.join(_sides(record)) or 'none yet'}",
            param="physical",
        )
    return physical


async def versions(
    scene: Scene, record: JobRecord, physical: str, after: PointId | None, limit: int
) -> Versions:
    """Return a page of live points with their versions."""
    tips = [
        writer.applied for w in _sides(record) if (writer := scene.changes.writer(w)) is not None
    ]
    points, following = await scene.store.scroll(
        _checked(record, physical),
        after=after,
        limit=limit,
        where=live(None),
        fields=(VERSION, DELETED),
    )
    return Versions(
        points=tuple(PointVersion(id=p.id, version=p.version) for p in points),
        next=following,
        settled=min(tips, default=0),
    )


async def versions_of(
    scene: Scene, record: JobRecord, physical: str, ids: Sequence[PointId]
) -> Versions:
    """Return versions of certain live points, once both sides have all that is accepted."""
    settled = await scene.changes.settled(_sides(record), SETTLE_SECONDS)
    found = await scene.store.retrieve(_checked(record, physical), ids)
    alive = [point for point in found if not point.is_tombstone]
    return Versions(
        points=tuple(PointVersion(id=p.id, version=p.version) for p in alive), settled=settled
    )


async def hashes(scene: Scene, record: JobRecord, physical: str, ids: Sequence[PointId]) -> Hashes:
    """Return what distinguishes the contents of some points."""
    found = await scene.store.retrieve(_checked(record, physical), ids, vectors=True)
    return Hashes(points=tuple(_hash(point) for point in found if not point.is_tombstone))


def _hash(point: Point) -> PointHash:
    payload = {name: value for name, value in point.payload.items() if name != VERSION}
    sparse = point.sparse
    vectors: list[Any] = [
        None if point.dense is None else [_rounded(value) for value in _direction(point.dense)],
        sparse and sorted(zip(sparse.indices, map(_rounded, sparse.values), strict=True)),
    ]
    return PointHash(
        id=point.id,
        version=point.version,
        payload=_digest(payload),
        vectors=_digest(vectors),
        has_dense=point.dense is not None,
        has_text=isinstance(point.payload.get(TEXT), str),
    )


def _direction(vector: Sequence[float]) -> list[float]:
    """Return a vector of length 1: stores of cosines keep no other."""
    length = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _rounded(value: float) -> float:
    return round(value, DIGITS)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def schema(scene: Scene, record: JobRecord) -> Schema:
    """Return how the target is laid out and what it is to be."""
    if record.target is None or record.wanted is None:
        raise InvalidRequest("the job has no target yet")
    found = await scene.store.describe(record.target)
    if found is None:
        return Schema(wanted={}, target={}, differences=(f"there is no {record.target!r}",))
    dimensions = int(record.made.get("dimensions") or found.layout.dimensions)
    wanted = layout_of(record.wanted, dimensions, record.token_width)
    lacking = [
        f"payload field {name!r} is not indexed as {kind}"
        for name, kind in wanted_fields(record.wanted).items()
        if found.payload_indexes.get(name) != kind
    ]
    return Schema(
        wanted=_plain(asdict(wanted)),
        target=_plain(asdict(found.layout)),
        differences=(*differences(wanted, found.layout), *lacking),
    )


def _plain(layout: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in layout.items() if name != "metadata"}


async def probes(scene: Scene, record: JobRecord, samples: int) -> Probes:
    """Search the target for some of its own points, by the index and exactly, and by texts."""
    if record.target is None or record.wanted is None:
        raise InvalidRequest("the job has no target yet")
    points, _ = await scene.store.scroll(
        record.target, limit=samples, where=live({"must": [{"has_vector": "dense"}]}), vectors=True
    )
    sampled = [point for point in points if point.dense is not None]
    if not sampled:
        return Probes(samples=0)
    dimensions = len(sampled[0].dense or ())
    params = settings_of(record.wanted, dimensions).search
    shares, seconds = [], []
    for point in sampled:
        branch = Branch(point.dense or (), DEPTH)
        began = time.perf_counter()
        (found,) = await _asked(scene, record.target, Query((branch,), DEPTH, params=params))
        seconds.append(time.perf_counter() - began)
        (nearest,) = await _asked(scene, record.target, Query((branch,), DEPTH, params=_EXACT))
        if nearest:
            shares.append(share(found, nearest))
        await asyncio.sleep(0)
    return Probes(
        samples=len(sampled),
        recall_percent=math.floor(100 * sum(shares) / len(shares)) if shares else None,
        self_retrieval_percent=await _self_retrieval(scene, record, sampled, params),
        p95_seconds=sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1],
    )


async def _asked(scene: Scene, target: str, query: Query) -> list[list[Found]]:
    return await scene.store.query(target, [query], seconds=PROBE_SECONDS)


async def _self_retrieval(
    scene: Scene, record: JobRecord, sampled: Sequence[Point], params: Mapping[str, Any]
) -> int | None:
    """Return the share of texts that find their own point, or one of equal text, first."""
    if record.plan is None or not record.plan.embeds or not record.switches:
        return None
    chosen = [p for p in sampled if isinstance(p.payload.get(TEXT), str)][:TEXT_PROBES]
    hits = tried = 0
    for first in range(0, len(chosen), EMBEDDED_AT_ONCE):
        points = chosen[first : first + EMBEDDED_AT_ONCE]
        embedded = await _embedded(scene, record, [str(p.payload[TEXT]) for p in points])
        for point, vectors in zip(points, embedded.texts, strict=True):
            branch = Branch(vectors.dense, 1)
            (found,) = await _asked(scene, record.target or "", Query((branch,), 1, params=params))
            is_hit = bool(found) and found[0].payload.get(TEXT) == point.payload[TEXT]
            hits += is_hit
            tried += is_hit or await _is_unchanged(scene, record, point)
    return math.floor(100 * hits / tried) if tried else None


async def _is_unchanged(scene: Scene, record: JobRecord, point: Point) -> bool:
    """Return whether a point is still what it was; one that was written since has another text."""
    found = await scene.store.retrieve(record.target or "", [point.id])
    return [each.version for each in found] == [point.version]


async def _embedded(scene: Scene, record: JobRecord, texts: Sequence[str]) -> Embedded:
    model = str(record.made["name"])
    return await scene.embedder.embed(model, texts, Role.DOCUMENT, tenant=TENANT, urgent=False)
