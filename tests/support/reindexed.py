"""Collections and their reindex jobs on the real embedded store, with texts embedded in no time."""

import asyncio
import contextlib
import hashlib
import pathlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from prometheus_client import CollectorRegistry

from tests.support.stores import eventually
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.wire.pod_report import ReportedReindex
from ullage_api.wire.pool_desired import DesiredCollection, DesiredReindex
from ullage_runtime.core.errors import InvalidRequest, ModelLoading
from ullage_runtime.core.pooled import Output, Role
from ullage_runtime.core.reindexing.rate import Pace
from ullage_runtime.retrieval.collection import Collection, NewPoint
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.embedding import Embedded, Space, Vectors
from ullage_runtime.retrieval.metrics import RetrievalMetrics
from ullage_runtime.retrieval.ranking import Ranker
from ullage_runtime.retrieval.reindex.driven import Driven
from ullage_runtime.retrieval.reindex.reindexes import Reindexes
from ullage_runtime.retrieval.reindex.remaking import ModelRemaker
from ullage_runtime.retrieval.reindex.reporting import reported
from ullage_runtime.retrieval.reindex.wire import (
    CheckpointRequest,
    FailureRequest,
    Hashes,
    Lease,
    LeaseRequest,
    Load,
    PageRequest,
    PageResult,
    Probes,
    ProbesRequest,
    Schema,
    VerificationRequest,
    Versions,
)
from ullage_runtime.retrieval.reindex.worker.driving import Driving
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod
from ullage_runtime.retrieval.searching import Mode, Search
from ullage_runtime.retrieval.stores.port import PointId

PATIENCE = 120.0
MODELS = {"small": 8, "large": 16}
"""Dimensions of the models there are."""


@dataclass
class QuickEmbedder:
    """An `Embedder` whose vectors are drawn by a text's hash: equal texts, equal vectors."""

    away: set[str] = field(default_factory=set)
    """Models that cannot be had for now."""
    poison: str = "\0"
    """What no text may have in it."""

    async def space(self, model: str) -> Space:
        self._check(model)
        return Space(model, f"revision-of-{model}", MODELS[model])

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        role: Role,
        *,
        tenant: str,
        urgent: bool,
        further: Sequence[Output] = (),
        lasting: bool = True,
    ) -> Embedded:
        del role, tenant, urgent, further, lasting
        self._check(model)
        if any(self.poison in text for text in texts):
            raise InvalidRequest("the text is poison")
        await asyncio.sleep(0)
        return Embedded(
            tuple(Vectors(vector_of(model, each)) for each in texts), await self.space(model)
        )

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        self._check(model)
        return [len(text.split()) for text in texts]

    def _check(self, model: str) -> None:
        if model in self.away:
            raise ModelLoading(f"{model} is away")


def vector_of(model: str, text: str) -> tuple[float, ...]:
    """What a model makes of a text."""
    seed = hashlib.sha256(f"{model}/{text}".encode()).digest()
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    return tuple(dice.gauss(0, 1) for _ in range(MODELS[model]))


def spec(model: str = "small", **given: Any) -> VectorCollectionSpec:
    """A collection's spec."""
    return VectorCollectionSpec.model_validate(
        {"pool": "default", "embedding": {"modelDeployment": model}, **given}
    )


@dataclass
class DirectPod:
    """The pod as its worker sees it, without a socket in between."""

    driven: Driven

    async def lease(self, request: LeaseRequest) -> Lease:
        return await self.driven.lease(request)

    async def page(self, request: PageRequest) -> PageResult:
        return await self.driven.page(request)

    async def keep(self, request: CheckpointRequest) -> None:
        await self.driven.keep(request)

    async def versions(self, physical: str, after: PointId | None, limit: int) -> Versions:
        return await self.driven.versions(physical, after, limit)

    async def versions_of(self, physical: str, ids: Sequence[PointId]) -> Versions:
        return await self.driven.versions_of(physical, list(ids))

    async def hashes(self, physical: str, ids: Sequence[PointId]) -> Hashes:
        return await self.driven.hashes(physical, list(ids))

    async def schema(self) -> Schema:
        return await self.driven.schema()

    async def probes(self, request: ProbesRequest) -> Probes:
        return await self.driven.probes(request)

    async def judge(self, request: VerificationRequest) -> None:
        await self.driven.judge(request)

    async def fail(self, request: FailureRequest) -> None:
        await self.driven.fail(request)


@dataclass
class Place:
    """One process's collections and jobs, and the workers that drive them."""

    collections: Collections
    reindexes: Reindexes
    embedder: QuickEmbedder
    works: bool = True
    """Whether there are workers."""
    workers: dict[str, asyncio.Task[Any]] = field(default_factory=dict)

    @property
    def notes(self) -> Collection:
        return self.collections.find("notes")

    def want_worker(self, name: str) -> None:
        task = self.workers.get(name)
        if self.works and (task is None or task.done()):
            pod = cast("Pod", DirectPod(self.reindexes.find(name)))
            leased = Leased(pod, f"worker-{time.monotonic_ns()}", Pace(), time.monotonic)
            self.workers[name] = asyncio.create_task(Driving(pod, leased).run())

    async def wants(self, wanted: VectorCollectionSpec, generation: int = 1) -> None:
        """Have the collection's spec say something."""
        await self.collections.apply(
            [DesiredCollection(name="notes", generation=generation, spec=wanted)]
        )

    async def is_open(self) -> None:
        async def has_opened() -> bool:
            return self.collections.held("notes").collection is not None

        await eventually(has_opened, PATIENCE)

    async def job(self, name: str = "job", **given: Any) -> None:
        """Have the document name a job."""
        job = ReindexJobSpec.model_validate({"collection": "notes", **given})
        await self.reindexes.apply([DesiredReindex(name=name, uid=f"uid-{name}", spec=job)])

    def report(self, name: str = "job") -> ReportedReindex:
        return reported(self.reindexes.find(name).job)

    async def reached(self, *phases: str, name: str = "job") -> ReportedReindex:
        """Wait until a job is in one of some phases."""

        async def is_there() -> bool:
            now = self.report(name)
            ended = now.phase.is_over and now.phase.value not in phases
            assert not ended, now
            return now.phase.value in phases

        await eventually(is_there, PATIENCE)
        return self.report(name)

    async def write(self, *numbers: int, **payload: Any) -> None:
        """Write points whose texts say their numbers."""
        points = [NewPoint(n, {"n": n, **payload}, text(n)) for n in numbers]
        await self.notes.upsert(points, wait=True, tenant="somebody")

    async def found(self, number: int) -> int:
        """Return what a search for a text finds first."""
        search = Search(text=text(number), mode=Mode.DENSE, limit=1, exact=True)
        findings = await self.collections.searcher("notes").search(search, tenant="somebody")
        return int(findings.hits[0].id)


def text(number: int) -> str:
    """A text of its own for each number."""
    return f"note number {number}"


@contextlib.asynccontextmanager
async def place(
    folder: pathlib.Path, wanted: VectorCollectionSpec, embedder: QuickEmbedder | None = None
) -> AsyncIterator[Place]:
    """One process with the collection `notes`."""
    embedder = embedder or QuickEmbedder()
    remaker = ModelRemaker(embedder)
    collections = Collections(
        folder,
        embedder,
        cast("Ranker", None),
        RetrievalMetrics(CollectorRegistry()),
        remaker=remaker,
    )
    reindexes = Reindexes(collections, embedder, remaker, folder, lambda _: Load())
    made = Place(collections, reindexes, embedder)
    reindexes.want_worker = made.want_worker
    try:
        await made.wants(wanted)
        await made.is_open()
        yield made
    finally:
        for task in made.workers.values():
            task.cancel()
        await asyncio.gather(*made.workers.values(), return_exceptions=True)
        await reindexes.close()
        await collections.close()
