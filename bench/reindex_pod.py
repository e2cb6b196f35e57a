"""A pod with a collection that is reindexed, for `bench reindex`: its worker is a real process."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from bench.retrieval_data import Corpus
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.runtimes import served
from tests.support.stores import eventually
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.app import Runtime
from ullage_runtime.retrieval.collection import Collection, NewPoint
from ullage_runtime.retrieval.reindex.job import Job
from ullage_runtime.retrieval.reindex.wire import TOKEN_VARIABLE

NAME: Final = "points"
LOOK_SECONDS: Final = 0.02
PATIENCE: Final = 1800.0
STALE: Final = "stale"
"""A small model: what there is before a reindex is said to be of it."""
WANTED: Final = "wanted"
"""The model that texts are embedded with again."""


@dataclass
class Timeline:
    """When a job entered its phases, by the machine's clock."""

    job: Job
    entered: list[tuple[float, ReindexPhase]] = field(default_factory=list)
    driven: float = 0.0
    """When its worker came: a process takes a moment to begin."""
    processors: dict[str, float] = field(default_factory=dict)
    """Seconds of processors that copying took, by who: numbers that neighbours change least."""

    def spans(self) -> dict[str, tuple[float, float]]:
        """Return when each phase began and ended."""
        ends = [at for at, _ in self.entered[1:]]
        return {
            phase.value: (began, ended)
            for (began, phase), ended in zip(self.entered, ends, strict=False)
        }

    def seconds(self) -> dict[str, float]:
        """Return how long each phase took."""
        return {name: round(ended - began, 3) for name, (began, ended) in self.spans().items()}


@dataclass
class BenchPod:
    """The pod in this process, with the one collection."""

    runtime: Runtime
    folder: Path
    models: Mapping[str, Path]
    revision: int = 0

    @property
    def url(self) -> str:
        """Where it is searched."""
        return f"{self.runtime.url}/v1/collections/{NAME}/search"

    @property
    def collection(self) -> Collection:
        """The collection, once it is open."""
        return self.runtime.services.collections.find(NAME)

    async def wants(self, **given: Any) -> None:
        """Have the collection's spec say something, and wait until it is open."""
        spec = {"pool": "default", "embedding": {"modelDeployment": STALE}, **given}
        self.revision += 1
        desired = PoolDesired(
            namespace="default",
            pool="default",
            settings=RuntimeSettings(file_roots=tuple({str(p.parent) for p in self._paths})),
            models=tuple(_model(name, path) for name, path in self.models.items()),
            collections=(
                DesiredCollection(
                    name=NAME,
                    generation=self.revision,
                    spec=VectorCollectionSpec.model_validate(spec),
                ),
            ),
        )
        await self.runtime.documents.accept(desired.sealed(self.revision))

        async def is_open() -> bool:
            return self.runtime.services.collections.held(NAME).collection is not None

        await eventually(is_open, PATIENCE, every=0.1)

    @property
    def _paths(self) -> Sequence[Path]:
        return list(self.models.values())

    async def write(self, points: int, texts: Sequence[str] | None = None) -> None:
        """Write points with given vectors, and wait for their index."""
        collection = self.collection
        for first, vectors, words in Corpus().batches(points):
            said = words if texts is None else texts[first : first + len(words)]
            new = [
                NewPoint(first + n, {"shelf": n % 10}, text, tuple(vector))
                for n, (vector, text) in enumerate(zip(vectors.tolist(), said, strict=True))
            ]
            await collection.upsert(new, wait=False, tenant="bench", urgent=False)
            await collection.changes.wait(collection.changes.tip - 8, PATIENCE)
        await collection.changes.wait(collection.changes.tip, PATIENCE)
        await collection.store.build(collection.physical)

        async def is_built() -> bool:
            found = await collection.store.describe(collection.physical)
            return found is not None and found.is_optimised

        await eventually(is_built, PATIENCE, every=0.2)

    def _spent(self, worker: int) -> dict[str, float]:
        """Return the seconds of processors that everybody has taken so far."""
        owner = self.runtime.services.collections._owner  # noqa: SLF001 - nobody else tells
        pids = {"pod": os.getpid(), "worker": worker, "store": owner.pid if owner else None}
        spent = {}
        for name, pid in pids.items():
            times = psutil.Process(pid).cpu_times()
            spent[name] = times.user + times.system
        return spent

    async def reindexed(self, name: str, *, limited: bool = True, **given: Any) -> Timeline:
        """Bring the collection to its spec, by a worker of its own; return when what was."""
        spec = ReindexJobSpec.model_validate(
            {"collection": NAME, "rollbackSeconds": 0, "verify": {"minRecallPercent": 0}, **given}
        )
        job = await self.runtime.services.reindexes.create(name, spec)
        timeline = Timeline(job)
        async with self._worker(name, limited=limited) as worker, asyncio.timeout(PATIENCE):
            before: dict[str, float] = {}
            while not job.record.is_over:
                self._look(timeline)
                if timeline.driven and job.record.phase is ReindexPhase.COPYING and not before:
                    before = self._spent(worker)
                copies = job.record.phase is ReindexPhase.COPYING
                if before and not timeline.processors and not copies:
                    spent = self._spent(worker)
                    timeline.processors = {who: round(spent[who] - before[who], 3) for who in spent}
                await asyncio.sleep(LOOK_SECONDS)
        self._look(timeline)
        if job.record.phase is not ReindexPhase.SUCCEEDED:
            raise RuntimeError(f"{job.record.phase.value}: {job.record.message}")
        return timeline

    def _look(self, timeline: Timeline) -> None:
        phase = timeline.job.record.phase
        if not timeline.driven and timeline.job.record.worker:
            timeline.driven = time.time()
        if not timeline.entered or timeline.entered[-1][1] is not phase:
            timeline.entered.append((time.time(), phase))

    @contextlib.asynccontextmanager
    async def _worker(self, job: str, *, limited: bool) -> AsyncIterator[int]:
        url, token = await self.runtime.door.address()
        module = ["-m", "bench.reindex_worker"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *module, url, job, "limited" if limited else "unlimited",
            env={**os.environ, TOKEN_VARIABLE: token},
        )  # fmt: skip
        try:
            yield process.pid
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


def _model(name: str, path: Path) -> DesiredModel:
    target = DesiredRevision(uri=f"file:{path.name}", engine=EngineSettings(), task=Task.EMBEDDING)
    return DesiredModel(name=name, task=Task.EMBEDDING, ordinals=(0,), target=target)


@contextlib.asynccontextmanager
async def bench_pod(
    folder: Path, dimensions: int, models: Mapping[str, Path] | None = None
) -> AsyncIterator[BenchPod]:
    """Give a pod whose workers are ours to start, and which keeps no vectors of texts."""
    small = write_encoder(folder / "stale.gguf", Encoder(width=dimensions, heads=12, layers=1))
    async with served(
        folder,
        None,
        max_concurrent_requests=1000,
        reindex_workers="outside",
        embeddings_cache_max_bytes=0,
    ) as (runtime, _):
        yield BenchPod(runtime, folder, {STALE: small, **(models or {})})
