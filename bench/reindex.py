"""How fast a collection is reindexed, and what whoever searches feels of it: `bench reindex`.

A pod holds a collection of 384 dimensions on its embedded store; jobs bring it to another profile
or model, each driven by a worker process. Texts are embedded again by a model of MiniLM's size.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import structlog
import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.embeddings import fresh_texts, written
from bench.reindex_pod import NAME, WANTED, BenchPod, Timeline, bench_pod
from bench.results import RESULTS, Kept
from bench.retrieval import recall
from bench.retrieval_data import DIMENSIONS, Corpus
from ullage_runtime.core.pooled import Role
from ullage_runtime.http.retrieval.schema import SearchBody
from ullage_runtime.retrieval.reindex.remaking import EMBEDDED_AT_ONCE
from ullage_runtime.retrieval.reindex.worker.copying import IN_FLIGHT

REST_SECONDS: Final = 20.0
"""How long searches go on before a job."""
SETTLE_SECONDS: Final = 3.0
SLOW, FAST = {"profile": "HighAccuracy"}, {"profile": "FastQuery"}

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    points: int
    texts: int
    rate: float
    seconds: float


def main(
    parts: Annotated[
        str, typer.Option(help="What is measured.")
    ] = "copying,searching,profiles,embedding",
    *,
    points: Annotated[int, typer.Option(min=100, help="Points of the collection.")] = 50_000,
    texts: Annotated[int, typer.Option(min=64, help="Texts that are embedded again.")] = 4000,
    rate: Annotated[float, typer.Option(help="Searches a second beside a job.")] = 50,
    seconds: Annotated[float, typer.Option(help="How long each way of searching is timed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time reindexes, what is searched beside them, and what they lead to."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    kept = Kept("reindex", machine.described(), out)
    sizes = Sizes(points, texts, rate, seconds)
    found: Found = {"dimensions": DIMENSIONS, "points": points}
    wanted = parts.split(",")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), wanted, sizes, found, lambda: kept.write(found)))
    for part in wanted:
        console.print(_table(part, found[part]))
    kept.tell(console)


async def _measure(
    folder: Path, wanted: list[str], sizes: Sizes, found: Found, keep: Callable[[], None]
) -> None:
    if set(wanted) - {"embedding"}:
        async with bench_pod(folder, DIMENSIONS) as pod:
            # A copy needs another layout, so it goes to and fro between two profiles.
            others = itertools.cycle((FAST, SLOW))
            await pod.wants(**SLOW)
            await pod.write(sizes.points)
            if "profiles" in wanted:
                found["profiles"] = await _profiles(pod, sizes)
                keep()
            if "copying" in wanted:
                await pod.wants(**next(others))
                done = await pod.reindexed("copy", mode="Copy")
                found["copying"] = _rates(done, sizes.points)
                keep()
            if "searching" in wanted:
                found["searching"] = {"searchesPerSecond": sizes.rate}
                for name in ("limited", "unlimited"):
                    await pod.wants(**next(others))
                    found["searching"][name] = await _searching(pod, name, sizes)
                    keep()
    if "embedding" in wanted:
        with tempfile.TemporaryDirectory() as other:
            found["embedding"] = await _embedding(Path(other), sizes.texts)
        keep()


def _rates(done: Timeline, points: int) -> Found:
    began, ended = done.spans()["Copying"]
    took = ended - max(began, done.driven)
    return {
        "pointsPerSecond": round(points / took, 1),
        "processorSeconds": done.processors,
        "seconds": done.seconds(),
    }


async def _embedding(folder: Path, count: int) -> Found:
    """Return how fast texts are embedded again, beside the model's own rate on the same texts."""
    model = written(folder, "embed", "int8")
    texts = list(itertools.islice(fresh_texts("reindex"), count))
    async with bench_pod(folder, DIMENSIONS, {WANTED: model}) as pod:
        await pod.wants()
        await pod.write(count, texts)
        alone = await _alone(pod, texts)
        await pod.wants(embedding={"modelDeployment": WANTED})
        done = await pod.reindexed("embed")
    rates = _rates(done, count)
    share = rates["pointsPerSecond"] / alone
    return {"texts": count, "aloneTextsPerSecond": round(alone, 1), "share": share, **rates}


async def _alone(pod: BenchPod, texts: list[str]) -> float:
    """Return how many of the texts the model embeds a second, asked as a worker's pages do."""
    embedder = pod.collection.embedder
    await embedder.embed(WANTED, texts[:1], Role.DOCUMENT, tenant="bench", urgent=False)
    firsts = iter(range(0, len(texts), EMBEDDED_AT_ONCE))

    async def embed() -> None:
        for first in firsts:
            some = texts[first : first + EMBEDDED_AT_ONCE]
            await embedder.embed(WANTED, some, Role.DOCUMENT, tenant="bench", urgent=False)

    began = time.perf_counter()
    await asyncio.gather(*(embed() for _ in range(IN_FLIGHT)))
    return len(texts) / (time.perf_counter() - began)


async def _searching(pod: BenchPod, name: str, sizes: Sizes) -> Found:
    """Return what searches take before a copy and in its phases."""
    async with _searches(pod, sizes.rate) as answered:
        began = time.time()
        await asyncio.sleep(REST_SECONDS)
        done = await pod.reindexed(name, limited=name == "limited", mode="Copy")
        await asyncio.sleep(SETTLE_SECONDS)
    spans = done.spans()
    first, last = spans["Copying"][0], spans["Verifying"][1]
    spans = {"before": (began, first), **spans, "whole": (first, last)}
    searches = {
        span: figures
        for span, (start, end) in spans.items()
        if (figures := _figures([s for at, s in answered if start <= at < end]))
    }
    return {**_rates(done, sizes.points), "searches": searches}


@contextlib.asynccontextmanager
async def _searches(
    pod: BenchPod, a_second: float
) -> AsyncIterator[list[tuple[float, float | None]]]:
    """Have the collection searched meanwhile; what they took is there afterwards."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.reindex_searches", pod.url, "dense", str(a_second),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    answered: list[tuple[float, float | None]] = []
    try:
        yield answered
        said, _ = await child.communicate(b"")  # which closes its input
        if child.returncode:
            raise RuntimeError(f"the searches ended with status {child.returncode}")
        answered += [(at, took) for at, took in json.loads(said)]
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _figures(answers: Sequence[float | None]) -> Found:
    took = [each for each in answers if each is not None]
    if not took:
        return {}
    half, most = np.percentile(took, [50, 95]) * 1000
    figures = {"p50Ms": round(float(half), 2), "p95Ms": round(float(most), 2)}
    return {**figures, "count": len(took), "failed": len(answers) - len(took)}


async def _profiles(pod: BenchPod, sizes: Sizes) -> Found:
    """Return recall and latency of a profile, of another one built in place, and of the first."""
    steps: list[Found] = []
    for number, profile in enumerate((SLOW, FAST, SLOW)):
        step: Found = dict(profile)
        if number:
            await pod.wants(**profile)
            step |= {"seconds": (await pod.reindexed(f"profile-{number}")).seconds()}
        step["recall"] = await recall(pod.collection)
        steps.append(step | await _searched(pod, sizes.seconds))
    return {"steps": steps}


async def _searched(pod: BenchPod, seconds: float) -> Found:
    """Return what searches take within the pod, one after the other."""
    searcher = pod.runtime.services.collections.searcher(NAME)
    bodies = Corpus(seed=10).questions("dense", 1000)
    searches = itertools.cycle(
        SearchBody.model_validate(each).search(searcher.collection) for each in bodies
    )
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await searcher.search(next(searches), tenant="bench")
        took.append(time.perf_counter() - began)
    return _figures(took)


def _table(part: str, found: Found) -> Table:
    table = Table("what", "found", title=part)

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, each in value.items():
                add(f"{prefix}.{name}" if prefix else name, each)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                add(f"{prefix}[{number}]", each)
        else:
            table.add_row(prefix, f"{value:.3f}" if isinstance(value, float) else str(value))

    add("", found)
    return table
