"""Random histories of a collection that is reindexed meanwhile, with crashes, on the real engine.

Collections, jobs, their worker and the paths between them are the pod's own; only the models are
played, and the process dies at any await of the store.
"""

import asyncio
import contextlib
import pathlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from tests.support.histories import engine
from tests.support.stores import eventually
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.wire.pool_desired import DesiredCollection, DesiredReindex
from ullage_runtime.core.errors import CollectionUnavailable
from ullage_runtime.core.pooled import Output, Role
from ullage_runtime.core.reindexing.joining import Side
from ullage_runtime.core.reindexing.rate import Pace
from ullage_runtime.http.errors import install_error_handlers
from ullage_runtime.http.internal.reindexes import router
from ullage_runtime.retrieval.collection import TEXT, Collection, NewPoint
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.embedding import Embedded, Space, Vectors
from ullage_runtime.retrieval.log.changes import live
from ullage_runtime.retrieval.metrics import RetrievalMetrics
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.reindexes import Reindexes
from ullage_runtime.retrieval.reindex.remaking import ModelRemaker
from ullage_runtime.retrieval.reindex.wire import MAX_VERSIONS, Load
from ullage_runtime.retrieval.reindex.worker.driving import Driving
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod
from ullage_runtime.retrieval.reindex.worker.verifying import Findings, Verifying
from ullage_runtime.retrieval.stores.port import VERSION, Point, PointId, Store, StoreRefused
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

DIMENSIONS = {"old": 8, "new": 12}
IDS = 6
MOST_CRASHES = 6
PATIENCE = 120.0
UNCOPIED = (
    Phase.PENDING,
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.DUAL_WRITING,
    Phase.COPYING,
)
FATEFUL = frozenset(
    {"create", "drop", "write", "copy", "carry", "scroll", "retrieve", "alter", "point_alias"}
)
"""What the process may die at; what is only looked at comes all the time."""

Late = list[Callable[[], Awaitable[Any]]]


def vector_of(model: str, text: str) -> tuple[float, ...]:
    """The vector that a model gives a text, of length 1."""
    dice = random.Random(f"{model}/{text}")  # noqa: S311 - not for secrets
    numbers = [dice.uniform(-1, 1) for _ in range(DIMENSIONS[model])]
    length = sum(each**2 for each in numbers) ** 0.5
    return tuple(each / length for each in numbers)


class PlayedEmbedder:
    """Two models whose vectors nobody can mistake for one another's."""

    async def space(self, model: str) -> Space:
        return Space(model, f"revision-of-{model}", DIMENSIONS[model])

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
        await asyncio.sleep(0)
        made = tuple(Vectors(vector_of(model, text)) for text in texts)
        return Embedded(made, await self.space(model))

    async def lengths(self, model: str, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


class NoRanker:
    async def rank(
        self, model: str, query: str, texts: Sequence[str], *, tenant: str
    ) -> tuple[float, ...]:
        raise AssertionError("nobody asks for it")


class Fault(Enum):
    """What is wrong with copies, for tests to find."""

    STALE = 1
    """They lose the last change of each point."""
    UNCONDITIONAL = 2
    """They write over whatever is there, as a back-fill without conditions does."""


EVER = 2**53
"""A version that everything is older than."""


def _before(point: Point) -> Point:
    payload = {**point.payload, "value": -1, VERSION: point.version - 1}
    return replace(point, payload=payload)


class Counting(Verifying):
    """A verification as others do it: both sides have equally many points."""

    async def _joined(self, findings: Findings) -> list[PointId]:
        counts = []
        for side in Side:
            page = await self._pod.versions(self._physical(side), None, MAX_VERSIONS)
            counts.append(len(page.points))
        findings.require(holds=counts[0] == counts[1], message=f"the counts are {counts}")
        return []


@dataclass
class Doomed:
    """A store that its user loses sight of at any moment, and that may act on old requests late."""

    store: QdrantStore
    dice: random.Random
    odds: float
    late: Late
    fault: Fault | None = None
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        if verb not in FATEFUL:
            return getattr(self.store, verb)  # type: ignore[no-any-return]
        return partial(self._did, verb)

    async def _did(self, verb: str, *given: Any, **named: Any) -> Any:
        await self._fate()
        does = getattr(self.store, verb)
        if verb == "copy" and self.fault is Fault.STALE:
            given = (given[0], [_before(each) for each in given[1]], *given[2:])
        if verb == "copy" and self.fault is Fault.UNCONDITIONAL:
            given = (*given[:2], EVER)
        odds = {"write": 0.3, "copy": 1.0 if self.fault else 0.3}.get(verb, 0.0)
        if self.dice.random() < odds:
            self.late.append(partial(does, *given, **named))
        result = await does(*given, **named)
        await self._fate()
        return result

    async def _fate(self) -> None:
        if self.crashed.is_set() or self.dice.random() < self.odds:
            self.crashed.set()
            await asyncio.Event().wait()  # whoever waits for this is cancelled, as by a kill

    async def build(self, _: str) -> None:
        """Leave a handful of points as they are: a build is a process of its own."""

    async def close(self) -> None:
        """The engine outlives whoever uses it."""


class PodOfCollections(Collections):
    """Collections whose embedded store is the one that is given."""

    given: Store

    async def _embedded(self) -> Store:
        return self.given


@dataclass
class Process:
    """The part of a pod that has to do with collections, until it dies."""

    folder: pathlib.Path
    store: Doomed
    verifying: type[Verifying] = Verifying

    def __post_init__(self) -> None:
        embedder = PlayedEmbedder()
        remaker = ModelRemaker(embedder)
        metrics = RetrievalMetrics(CollectorRegistry())
        self.collections = PodOfCollections(
            self.folder, embedder, NoRanker(), metrics, remaker=remaker
        )
        self.collections.given = self.store  # type: ignore[assignment]
        self.reindexes = Reindexes(
            self.collections, embedder, remaker, self.folder, lambda _: Load()
        )
        self.app = FastAPI()
        self.app.state.services = SimpleNamespace(reindexes=self.reindexes)
        self.app.include_router(router)
        install_error_handlers(self.app)
        self.worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Drive the job, again and again, as whoever starts workers would."""
        loop = asyncio.get_running_loop()
        while True:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            pod = Pod("http://pod", "job", None, transport=transport, clock=loop.time)
            try:
                leased = Leased(pod, f"{id(self)}", Pace(), loop.time)
                await Driving(pod, leased, self.verifying).run()
            finally:
                await pod.close()
            await asyncio.sleep(0.2)

    async def die(self) -> None:
        """End at once what it does."""
        self.worker.cancel()
        await asyncio.gather(self.worker, return_exceptions=True)
        await self.reindexes.close()
        await self.collections.close()


State = dict[int, dict[str, Any]]


@dataclass
class ReindexHistory:
    """One collection's life beside a job that reindexes it, told by a seed."""

    seed: int
    folder: pathlib.Path
    engine: QdrantStore
    odds: float = 0.03
    steps: int = 25
    fault: Fault | None = None
    verifying: type[Verifying] = Verifying
    expected: State = field(default_factory=dict)
    crashes: int = 0
    phase: Phase = Phase.PENDING
    message: str = ""
    wrong: AssertionError | None = None
    """What differed in the end."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311 - not for secrets
        self.name = f"notes-{self.seed}"
        self.late: Late = []
        self.wishes: dict[str, Any] = {"rollback_seconds": 3600}
        self.generation = 1
        self.is_begun = False
        # What a store copies by itself is out of a fault's reach.
        reembeds = self.dice.random() < 0.7 or self.fault is not None
        self.wanted = {"model": "new"} if reembeds else {"profile": "HighAccuracy"}
        self.end = self.dice.choice(("keep", "keep", "rollback", "cancel"))
        # A fault shows where there is much to copy, and the target comes to be searched.
        first = 12 if self.fault else 0
        if self.fault:
            self.end = "keep"
        self.starts = first + self.dice.randrange(self.steps // 5)
        # What is copied late is late only once the copy is over.
        self.is_patient = self.dice.random() < 0.5 or self.fault is Fault.UNCONDITIONAL
        self.ends = self.dice.randrange(self.starts + 1, self.steps)

    async def live(self) -> None:
        """Live through it; `wrong` says afterwards whether store and log differ."""
        pending = [self._drawn(number) for number in range(self.steps)]
        while pending or not self.phase.is_over:
            pending = await self._process(pending)
        try:
            await self._check()
        except AssertionError as error:
            self.wrong = error

    async def _process(self, pending: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run one process until everything is done or it dies; return what is left to do."""
        odds = self.odds if self.crashes < MOST_CRASHES else 0.0
        store = Doomed(self.engine, self.dice, odds, self.late, self.fault)
        process = Process(self.folder, store, self.verifying)
        left = list(pending)
        crash = asyncio.create_task(store.crashed.wait())
        life = asyncio.create_task(self._live_on(process, left))
        await asyncio.wait({life, crash}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        self.crashes += crash.done()
        crash.cancel()
        await asyncio.gather(crash, return_exceptions=True)
        await process.die()
        return left

    async def _live_on(self, process: Process, left: list[dict[str, Any]]) -> None:
        await self._tell(process)
        collection = await self._opened(process)
        while left:
            step = left[0]
            await self._ruled(process, step["number"])
            before = collection.changes._file.tip()
            try:
                await self._asked(collection, step)
            finally:
                # Asked and not answered is accepted, if the log has it.
                if collection.changes._file.tip() > before or step.pop("done", False):
                    self._expect(left.pop(0))
            # What is faulty comes last, as nothing would make it good again.
            if self.late and not self.fault and self.dice.random() < 0.3:
                await self._arrives(self.late.pop(self.dice.randrange(len(self.late))))
            await asyncio.sleep(self.dice.uniform(0, 0.25))
            if step["number"] == self.starts + 4 and self.is_patient:
                await self._copied(process)
        self.wishes.pop("suspend", None)
        if self.end == "keep":
            self.wishes["rollback_seconds"] = 0
        await self._tell(process)
        await self._comes(process, partial(self._is_over, process))

    async def _copied(self, process: Process) -> None:
        """Let the job come beyond its copy, so that what follows is written beside it."""

        async def is_copied() -> bool:
            phase = process.reindexes.find("job").job.record.phase
            return phase not in UNCOPIED

        if not self.wishes.get("suspend", False):
            await self._comes(process, is_copied)

    async def _comes(self, process: Process, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something holds, and say how the job stands if it does not."""
        try:
            await eventually(holds, PATIENCE, every=0.05)
        except AssertionError as error:
            job = process.reindexes.find("job").job
            how = f"{job.record.phase.value}, {job.waiting}, worker: {process.worker}"
            raise AssertionError(f"seed {self.seed}: {how}") from error

    async def _ruled(self, process: Process, number: int) -> None:
        """Begin the job, pause it, and end it when its time has come."""
        before = (self.is_begun, dict(self.wishes))
        self.is_begun = self.is_begun or number >= self.starts
        if number >= self.ends and self.end != "keep":
            self.wishes[self.end] = True
        if self.is_begun and not self.fault and self.dice.random() < 0.1:
            self.wishes["suspend"] = not self.wishes.get("suspend", False)
        if before != (self.is_begun, self.wishes):
            self.generation += 1
            await self._tell(process)

    async def _tell(self, process: Process) -> None:
        """Say what is wanted, as the desired document does."""
        given: dict[str, Any] = {"pool": "default", "embedding": {"modelDeployment": "old"}}
        jobs = []
        if self.is_begun:
            if "model" in self.wanted:
                given["embedding"] = {"modelDeployment": "new"}
            else:
                given |= self.wanted
            spec = ReindexJobSpec.model_validate(
                {
                    "collection": self.name,
                    "mode": "Copy",
                    "verify": {"sampleSize": 5, "minRecallPercent": 0},
                    **{_camel(name): value for name, value in self.wishes.items()},
                }
            )
            jobs = [
                DesiredReindex(
                    name="job", uid=f"uid-{self.seed}", generation=self.generation, spec=spec
                )
            ]
        desired = DesiredCollection(name=self.name, spec=VectorCollectionSpec.model_validate(given))
        await process.collections.apply([desired])
        await process.reindexes.apply(jobs)

    async def _opened(self, process: Process) -> Collection:
        async def is_open() -> bool:
            with contextlib.suppress(CollectionUnavailable):
                return process.collections.find(self.name) is not None
            return False

        try:
            await eventually(is_open, PATIENCE)
        except AssertionError as error:
            problem = process.collections.held(self.name).problem
            raise AssertionError(f"seed {self.seed}: {problem}") from error
        return process.collections.find(self.name)

    async def _is_over(self, process: Process) -> bool:
        record: JobRecord = process.reindexes.find("job").job.record
        self.phase, self.message = record.phase, record.message
        return record.is_over

    def _drawn(self, number: int) -> dict[str, Any]:
        kind = self.dice.choices(
            ("upsert", "set", "delete", "delete_where", "set_where"), (8, 4, 3, 1, 1)
        )[0]
        ids = range(IDS)
        if self.fault:
            # One shows in what nothing is written to afterwards, the other in what is.
            is_early = number < self.starts
            kind = "delete" if kind == "delete" and not is_early else "upsert"
            ids = ids if is_early or self.fault is Fault.UNCONDITIONAL else ids[: IDS // 2]
        return {
            "number": number,
            "kind": kind,
            "ids": self.dice.sample(ids, self.dice.randint(1, 3)),
            "group": self.dice.randrange(3),
            "value": self.dice.randrange(1000),
            "wait": self.dice.random() < 0.3,
        }

    async def _asked(self, collection: Collection, step: dict[str, Any]) -> None:
        wait, where = step["wait"], {"must": [{"key": "group", "match": {"value": step["group"]}}]}
        match step["kind"]:
            case "upsert":
                points = [
                    NewPoint(each, self._payload(step), self._text(each, step))
                    for each in step["ids"]
                ]
                await collection.upsert(points, wait=wait, tenant="t")
            case "delete":
                await collection.delete(step["ids"], wait=wait)
            case "delete_where":
                await collection.delete_where(where, wait=wait)
            case kind:
                await collection.set_payload(
                    {"value": step["value"]},
                    ids=step["ids"] if kind == "set" else None,
                    where=where if kind == "set_where" else None,
                    replace_all=False,
                    wait=wait,
                )
        step["done"] = True

    def _payload(self, step: dict[str, Any]) -> dict[str, Any]:
        return {"group": step["group"], "value": step["value"]}

    def _text(self, number: int, step: dict[str, Any]) -> str:
        return f"text {step['value']} of {number}"

    def _expect(self, step: dict[str, Any]) -> None:
        state, kind = self.expected, step["kind"]
        group = [n for n, payload in state.items() if payload["group"] == step["group"]]
        ids = group if kind.endswith("_where") else step["ids"]
        if kind == "upsert":
            for each in ids:
                state[each] = {**self._payload(step), TEXT: self._text(each, step)}
            return
        for each in set(ids) & set(state):
            if kind.startswith("set"):
                state[each]["value"] = step["value"]
            else:
                del state[each]

    async def _arrives(self, late: Callable[[], Awaitable[Any]]) -> None:
        with contextlib.suppress(StoreRefused):  # its collection is no more
            await late()

    async def _check(self) -> None:
        """Hold what is read against what was accepted, after all that is late has arrived."""
        store = Doomed(self.engine, self.dice, 0.0, [])
        process = Process(self.folder, store)
        try:
            await self._tell(process)
            collection = await self._opened(process)
            routing = collection.changes.routing
            for late in self.late:
                await self._arrives(late)
            await collection.changes.settled(routing.write, PATIENCE)
            where = f"seed {self.seed}, {self.phase.value} {self.message}"
            assert routing.write == (routing.read,), where
            is_new = self.phase is Phase.SUCCEEDED
            model = "new" if is_new and "model" in self.wanted else "old"
            assert routing.model["name"] == model, where
            assert routing.read.endswith("-1") is not is_new, where
            await self._compare(routing.read, model, where)
        finally:
            await process.die()
        await self.engine.drop(routing.read)

    async def _compare(self, physical: str, model: str, where: str) -> None:
        points, _ = await self.engine.scroll(physical, limit=100, where=live(None), vectors=True)
        found = {
            each.id: {name: value for name, value in each.payload.items() if name != VERSION}
            for each in points
        }
        assert found == self.expected, where
        for each in points:
            wanted = vector_of(model, str(each.payload[TEXT]))
            assert each.dense is not None, where
            assert len(each.dense) == len(wanted), where
            cosine = sum(a * b for a, b in zip(each.dense, wanted, strict=True))
            assert cosine > 0.999, f"{where}: the vector of point {each.id}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)


async def live_all(
    folder: pathlib.Path, seeds: Sequence[int], at_once: int = 6, **given: Any
) -> list[ReindexHistory]:
    """Live through histories, some at a time; return them."""
    lives: list[ReindexHistory] = []
    turns = asyncio.Semaphore(at_once)
    async with engine(folder / "volume") as store:

        async def one(seed: int) -> None:
            async with turns:
                history = ReindexHistory(seed, folder / str(seed), store, **given)
                (folder / str(seed)).mkdir()
                await history.live()
                lives.append(history)

        async with asyncio.TaskGroup() as group:
            for seed in seeds:
                group.create_task(one(seed))
    return lives
