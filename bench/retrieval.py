"""How fast collections are searched, and how much of what is nearest is found: `bench retrieval`.

A pod serves a collection of 384 dimensions on its embedded store. Dense, filtered, sparse and
hybrid searches are timed within the pod and through HTTP, by 1 and 8 clients, at rest and while
1,000 points a second come in. Beside it: qdrant-client's local mode and the bare engine. Vectors
are given, so that no model is timed.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import structlog
import typer
import uvloop
from rich.table import Table

from bench import machine
from bench.console import console
from bench.results import RESULTS, Kept
from bench.retrieval_data import DIMENSIONS, KINDS, SHELVES, Corpus
from bench.retrieval_others import beside
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.runtimes import served
from tests.support.stores import eventually
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.vector_collection import IndexProfile, VectorCollectionSpec
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.app import Runtime
from ullage_runtime.http.retrieval.schema import SearchBody
from ullage_runtime.retrieval.collection import Collection, NewPoint
from ullage_runtime.retrieval.stores.port import Branch, Query

PATIENCE: Final = 3600.0
DEPTH: Final = 10
RECALL_QUESTIONS: Final = 200
CLIENTS: Final = (1, 8)
INGESTED: Final = 1000
"""Points a second that come in beside searches."""
BATCH: Final = 100
EXACT: Final = {"exact": True, "quantization": {"ignore": True}}


def main(
    *,
    points: Annotated[int, typer.Option(min=1000, help="Points of the collection.")] = 100_000,
    seconds: Annotated[float, typer.Option(help="How long each way of searching is timed.")] = 10,
    opponents: Annotated[bool, typer.Option(help="Whether others are measured beside it.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time searches, and count what of the nearest they find."""
    kept = Kept("retrieval", machine.described(), out)
    found: dict[str, Any] = {"points": points, "dimensions": DIMENSIONS, "seconds": seconds}
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_measure(Path(folder), points, seconds, found, lambda: kept.write(found)))
        if opponents:
            found["beside"] = beside(Path(folder), points, seconds)
            kept.write(found)
    _show(found)
    kept.tell(console)


async def _measure(
    folder: Path, points: int, seconds: float, found: dict[str, Any], keep: Callable[[], None]
) -> None:
    write_encoder(folder / "encoder.gguf", Encoder(width=DIMENSIONS, heads=12))
    found["recall"], found["loading"], found["latency"] = {}, {}, []
    async with served(folder, None, max_concurrent_requests=64) as (runtime, _):
        await runtime.documents.accept(_desired(folder).sealed(1))
        for profile in IndexProfile:
            collection = await _ready(runtime, profile)
            found["loading"][profile.value] = await _loaded(runtime, collection, points)
            found["recall"][profile.value] = await recall(collection)
            keep()
        for state in ("idle", "ingesting"):
            collection = await _ready(runtime, IndexProfile.BALANCED)
            async with _ingesting(collection, points, on=state == "ingesting") as rate:
                for kind in KINDS:
                    for clients in CLIENTS:
                        for place in (_in_pod, _over_http):
                            took = await place(runtime, kind, clients, seconds)
                            found["latency"].append(
                                {
                                    "state": state,
                                    "kind": kind,
                                    "clients": clients,
                                    "where": place.__name__.strip("_"),
                                    **_figures(took, seconds),
                                }
                            )
                            keep()
                if state == "ingesting":
                    found["ingested_a_second"] = rate()
    keep()


def _desired(folder: Path) -> PoolDesired:
    target = DesiredRevision(
        uri="file:encoder.gguf", engine=EngineSettings(threads=1), task=Task.EMBEDDING
    )
    return PoolDesired(
        namespace="default",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(folder),)),
        models=(DesiredModel(name="encoder", task=Task.EMBEDDING, ordinals=(0,), target=target),),
        collections=tuple(
            DesiredCollection(
                name=_name(profile),
                spec=VectorCollectionSpec.model_validate(
                    {
                        "pool": "default",
                        "embedding": {"modelDeployment": "encoder"},
                        "profile": profile.value,
                        "payloadIndexes": [{"field": "shelf", "type": "Integer"}],
                    }
                ),
            )
            for profile in IndexProfile
        ),
    )


def _name(profile: IndexProfile) -> str:
    return profile.value.lower()


async def _ready(runtime: Runtime, profile: IndexProfile) -> Collection:
    collections = runtime.services.collections

    async def is_open() -> bool:
        return collections.held(_name(profile)).collection is not None

    await eventually(is_open, PATIENCE, every=0.1)
    return collections.find(_name(profile))


async def _loaded(runtime: Runtime, collection: Collection, points: int) -> dict[str, float]:
    """Write all points and wait for the index; return how long each took."""
    began = time.perf_counter()
    for first, vectors, texts in Corpus().batches(points):
        await _write(collection, first, vectors, texts)
        await collection.changes.wait(collection.changes.tip - 8, PATIENCE)
    await collection.changes.wait(collection.changes.tip, PATIENCE)
    written = time.perf_counter()
    owner = runtime.services.collections._owner  # noqa: SLF001 - nobody else builds at once
    if owner is None:
        raise RuntimeError("there is no embedded store")
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        path = f"{owner.url}/collections/{collection.physical}/optimise"
        answer = await client.post(path, headers={"api-key": owner.key})
        answer.raise_for_status()
    built = time.perf_counter()
    return {"write_seconds": round(written - began, 1), "index_seconds": round(built - written, 1)}


async def _write(collection: Collection, first: int, vectors: np.ndarray, texts: list[str]) -> None:
    new = [
        NewPoint(first + n, {"shelf": n % SHELVES}, text, tuple(vector))
        for n, (vector, text) in enumerate(zip(vectors.tolist(), texts, strict=True))
    ]
    await collection.upsert(new, wait=False, tenant="bench", urgent=False)


async def recall(collection: Collection) -> float:
    """Return the share of the ten nearest that are found."""
    hits = 0
    for vector in Corpus(seed=8).vectors(RECALL_QUESTIONS).tolist():
        branch = Branch(tuple(vector), DEPTH)
        queries = [Query((branch,), DEPTH, params=each) for each in (collection.params, EXACT)]
        found, nearest = await collection.store.query(collection.physical, queries, seconds=60)
        hits += len({each.id for each in found} & {each.id for each in nearest})
    return hits / (RECALL_QUESTIONS * DEPTH)


@contextlib.asynccontextmanager
async def _ingesting(
    collection: Collection, points: int, *, on: bool
) -> AsyncIterator[Callable[[], float]]:
    """Write beside what is measured; gives what returns how many points a second came in."""
    written, began = 0, time.perf_counter()

    async def write() -> None:
        nonlocal written
        corpus = Corpus(seed=9)
        while True:
            # Made elsewhere: it is not the pod's work.
            vectors = await asyncio.to_thread(corpus.vectors, BATCH)
            texts = await asyncio.to_thread(corpus.texts, BATCH)
            await _write(collection, points + written, vectors, texts)
            written += BATCH
            await asyncio.sleep(max(0.0, began + written / INGESTED - time.perf_counter()))

    task = asyncio.create_task(write()) if on else None
    try:
        yield lambda: round(written / (time.perf_counter() - began), 1)
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await collection.changes.wait(collection.changes.tip, PATIENCE)


async def _in_pod(runtime: Runtime, kind: str, clients: int, seconds: float) -> list[float]:
    searcher = runtime.services.collections.searcher(_name(IndexProfile.BALANCED))
    bodies = Corpus(seed=10).questions(kind, 1000)
    searches = cycle(SearchBody.model_validate(each).search(searcher.collection) for each in bodies)
    await searcher.search(next(searches), tenant="bench")
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def ask() -> None:
        while (began := time.perf_counter()) < until:
            await searcher.search(next(searches), tenant="bench")
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(ask() for _ in range(clients)))
    return took


async def _over_http(runtime: Runtime, kind: str, clients: int, seconds: float) -> list[float]:
    url = f"{runtime.url}/v1/collections/{_name(IndexProfile.BALANCED)}/search"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.retrieval_clients", url, kind, str(clients), str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the clients ended with status {child.returncode}")
    took: list[float] = json.loads(said)
    return took


def _figures(took: list[float], seconds: float) -> dict[str, float]:
    half, most = np.percentile(took, [50, 95]) * 1000
    return {
        "p50_ms": round(float(half), 2),
        "p95_ms": round(float(most), 2),
        "a_second": round(len(took) / seconds, 1),
    }


def _show(found: dict[str, Any]) -> None:
    table = Table("state", "search", "clients", "where", "p50 ms", "p95 ms", "a second")
    for row in found["latency"]:
        table.add_row(*(str(value) for value in row.values()))
    for name, rows in found.get("beside", {}).items():
        for kind, figures in rows.items():
            table.add_row("idle", kind, "1", name, *(str(value) for value in figures.values()))
    console.print(table)
    console.print("recall@10:", found["recall"], "loading:", found["loading"])
