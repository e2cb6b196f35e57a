"""Random histories of a collection with crashes, on the real embedded engine in this process."""

import asyncio
import contextlib
import pathlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.stores import DIMENSIONS, vector
from ullage_runtime.retrieval.edge.client import Answer
from ullage_runtime.retrieval.edge.facade import Facade
from ullage_runtime.retrieval.edge.optimising import Optimiser
from ullage_runtime.retrieval.edge.shards import Shards
from ullage_runtime.retrieval.log.changes import ChangeLog, live
from ullage_runtime.retrieval.log.file import LogFile, Routing
from ullage_runtime.retrieval.stores.embedded import EmbeddedStore
from ullage_runtime.retrieval.stores.port import VERSION, Filter, Layout, Point, PointId, Sparse
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

KEY = "key"
URL = "http://engine"
PHYSICAL = "things-1"
IDS = 6
"""Points of one history: few, so that mutations meet."""


def blocks(histories: int, size: int = 500) -> list[Any]:
    """Return the seeds of so many histories in parts, for processes that share the work."""
    firsts = range(1, histories + 1, size)
    parts = [range(first, min(first + size, histories + 1)) for first in firsts]
    return [pytest.param(each, id=f"{each[0]}-{each[-1]}") for each in parts]


@contextlib.asynccontextmanager
async def engine(folder: pathlib.Path) -> AsyncIterator[QdrantStore]:
    """The embedded store in this process, through the client and the REST façade."""
    shards = Shards(folder)
    transport = httpx.ASGITransport(Facade(shards, Optimiser(shards), KEY))
    headers = {"api-key": KEY}
    async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as client:

        async def ask(method: str, path: str, body: bytes, seconds: float) -> Answer:
            answer = await client.request(method, path, content=body, timeout=seconds)
            return Answer(answer.status_code, answer.content)

        store = EmbeddedStore(URL, KEY, transport=transport, ask=ask)
        try:
            yield store
        finally:
            await store.close()
            shards.close()


@dataclass
class Faulty:
    """A store that its user loses sight of at any moment, and that may act on old requests late."""

    store: QdrantStore
    dice: random.Random
    odds: float
    late: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, collection: str, points: Sequence[Point], version: int) -> None:
        await self._fate()
        if self.dice.random() < 0.3:
            self.late.append(lambda: self.store.write(collection, points, version))
        await self.store.write(collection, points, version)
        await self._fate()

    async def scroll(self, collection: str, **given: Any) -> Any:
        await self._fate()
        return await self.store.scroll(collection, **given)

    async def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        await self._fate()
        return await self.store.retrieve(collection, ids, vectors=vectors)

    async def purge(self, collection: str, version: int) -> None:
        await self.store.purge(collection, version)

    async def _fate(self) -> None:
        if self.crashed.is_set() or self.dice.random() < self.odds:
            self.crashed.set()
            await asyncio.Event().wait()  # whoever waits for this is cancelled, as by a kill


State = dict[int, dict[str, Any]]


@dataclass
class History:
    """One collection's life, told by a seed: what is asked for, and what must come of it."""

    seed: int
    folder: pathlib.Path
    store: QdrantStore
    odds: float = 0.08
    expected: State = field(default_factory=dict)
    crashes: int = 0
    steps: int = 25

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311 - not for secrets
        self.base = self.seed * 100

    async def live(self) -> None:
        """Live through it; AssertionError when store and log differ."""
        late: list[Callable[[], Awaitable[None]]] = []
        pending = [self._drawn() for _ in range(self.steps)]
        while pending:
            pending = await self._process(pending, late)
        await self._check(late)

    async def _process(
        self, pending: list[dict[str, Any]], late: list[Callable[[], Awaitable[None]]]
    ) -> list[dict[str, Any]]:
        """Run one process until it has done everything or dies; return what is left to do."""
        faulty = Faulty(self.store, self.dice, self.odds, late)
        changes = await self._opened(faulty)
        left = list(pending)
        crash = asyncio.create_task(faulty.crashed.wait())
        while left and not crash.done():
            before = changes._file.tip()
            work = asyncio.create_task(self._asked(changes, left[0]))
            await asyncio.wait({work, crash}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                accepted = changes._file.tip() > before
            else:
                accepted = True
                work.result()
            if accepted:
                self._expect(left.pop(0))
            if late and self.dice.random() < 0.3:
                await late.pop(self.dice.randrange(len(late)))()
        self.crashes += crash.done()
        crash.cancel()
        await asyncio.gather(crash, return_exceptions=True)
        await changes.close()
        return left

    async def _opened(self, store: Any) -> ChangeLog:
        changes = ChangeLog(LogFile(self.folder / f"{self.seed}.sqlite", lambda: 0.0), store)
        routing = await changes.open() or Routing(1, PHYSICAL, (PHYSICAL,), {})
        await changes.start(routing)
        return changes

    def _drawn(self) -> dict[str, Any]:
        kind = self.dice.choices(
            ("upsert", "set", "replace", "delete", "delete_where", "set_where"), (8, 4, 1, 3, 1, 1)
        )[0]
        ids = self.dice.sample(range(IDS), self.dice.randint(1, 3))
        return {
            "kind": kind,
            "ids": [self.base + each for each in ids],
            "group": self.dice.randrange(3),
            "value": self.dice.randrange(1000),
            "wait": self.dice.random() < 0.3,
        }

    async def _asked(self, changes: ChangeLog, step: dict[str, Any]) -> None:
        value = {"value": step["value"]}
        match step["kind"]:
            case "upsert":
                version = await changes.upsert([self._point(each, step) for each in step["ids"]])
            case "set":
                version, _ = await changes.set_payload(step["ids"], value)
            case "replace":
                whole = {**value, "home": self.seed, "group": step["group"]}
                version, _ = await changes.set_payload(step["ids"], whole, replace=True)
            case "delete":
                version = await changes.delete(step["ids"])
            case "delete_where":
                version, _ = await changes.delete_where(self._group(step))
            case "set_where":
                version, _ = await changes.set_payload_where(self._group(step), value)
            case kind:
                raise AssertionError(kind)
        if step["wait"]:
            await changes.wait(version)

    def _point(self, number: int, step: dict[str, Any]) -> Point:
        payload = {
            "home": self.seed,
            "group": step["group"],
            "value": step["value"],
            f"only{step['value'] % 3}": 1,
        }
        sparse = Sparse((step["value"],), (1.0,))
        return Point(number, payload, vector(number + step["value"]), sparse)

    def _group(self, step: dict[str, Any]) -> Filter:
        return {
            "must": [
                {"key": "home", "match": {"value": self.seed}},
                {"key": "group", "match": {"value": step["group"]}},
            ]
        }

    def _expect(self, step: dict[str, Any]) -> None:
        state, kind = self.expected, step["kind"]
        group = [n for n, payload in state.items() if payload["group"] == step["group"]]
        ids = group if kind.endswith("_where") else step["ids"]
        if kind == "upsert":
            for each in ids:
                payload = self._point(each, step).payload
                state[each] = dict(payload) | {"vector": each + step["value"]}
            return
        for each in set(ids) & set(state):
            if kind.startswith("set"):
                state[each]["value"] = step["value"]
            elif kind == "replace":
                kept = {"vector": state[each]["vector"], "home": self.seed}
                state[each] = kept | {"group": step["group"], "value": step["value"]}
            else:
                del state[each]

    async def _check(self, late: list[Callable[[], Awaitable[None]]]) -> None:
        """Hold the store against what was accepted, after everything that is late has arrived."""
        changes = await self._opened(self.store)
        await changes._settle()
        for arrives in late:
            await arrives()
        home: Filter = {"must": [{"key": "home", "match": {"value": self.seed}}]}
        points, _ = await self.store.scroll(PHYSICAL, limit=100, where=live(home), vectors=True)
        await changes.close()
        found = {each.id: each for each in points}
        payloads = {
            n: {k: v for k, v in p.payload.items() if k != VERSION} for n, p in found.items()
        }
        wanted = {
            n: {k: v for k, v in p.items() if k != "vector"} for n, p in self.expected.items()
        }
        assert payloads == wanted, f"seed {self.seed}"
        for number, payload in self.expected.items():
            dense = found[number].dense
            assert dense is not None
            cosine = sum(a * b for a, b in zip(dense, vector(payload["vector"]), strict=True))
            length = sum(each**2 for each in vector(payload["vector"])) ** 0.5
            assert cosine > 0.999 * length, f"seed {self.seed}: the vector of point {number}"


async def live_all(folder: pathlib.Path, seeds: Sequence[int]) -> int:
    """Live through histories; return how often a process died in them."""
    crashes = 0
    async with engine(folder / "volume") as store:
        await store.create(PHYSICAL, Layout(DIMENSIONS))
        for seed in seeds:
            history = History(seed, folder, store)
            await history.live()
            crashes += history.crashes
            (folder / f"{seed}.sqlite").unlink()
    return crashes
