"""The collections of this pod, as the desired document wants them."""

import asyncio
import pathlib
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import structlog

from ullage_api.kinds.vector_collection import StoreType, VectorCollectionSpec
from ullage_api.wire.pod_report import CollectionState, ReportedCollection
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_runtime.core.backoff import load_delay
from ullage_runtime.core.errors import (
    CollectionNotFound,
    CollectionUnavailable,
    OperationNotFound,
    ServingError,
)
from ullage_runtime.retrieval.breakers import Breakers
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.edge.owning import ShardOwner
from ullage_runtime.retrieval.edge.refusals import VolumeError
from ullage_runtime.retrieval.embedding import Embedder
from ullage_runtime.retrieval.founding import described, index_fields, made
from ullage_runtime.retrieval.held import Held
from ullage_runtime.retrieval.ingest.documents import DocumentsFile, Operation
from ullage_runtime.retrieval.ingest.ingestion import Ingestion
from ullage_runtime.retrieval.log.changes import ChangeLog
from ullage_runtime.retrieval.log.file import LogFile
from ullage_runtime.retrieval.making import Remaker
from ullage_runtime.retrieval.metrics import RetrievalMetrics
from ullage_runtime.retrieval.opening import view_of
from ullage_runtime.retrieval.profiles import ANY_WIDTH, differences, layout_of
from ullage_runtime.retrieval.ranking import Ranker
from ullage_runtime.retrieval.searcher import Searcher
from ullage_runtime.retrieval.stores.embedded import EmbeddedStore
from ullage_runtime.retrieval.stores.port import (
    Layout,
    Store,
    StoreError,
    StoreRefused,
)
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

log = structlog.stdlib.get_logger(__name__)

RETRY_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 5.0
"""How often points are counted and stores asked how they are, for the report."""
OPENING_STATUSES: Final = frozenset({429, 503, 504})
"""Errors of a model that only has yet to come."""
LOG_FILE: Final = "log.sqlite"
DOCUMENTS_FILE: Final = "documents.sqlite"
"""Files of each collection's folder."""


class Collections:
    """Every collection of one pod.

    `folder` keeps logs, documents and shards. `key_of` returns the API key for a store's host.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        embedder: Embedder,
        ranker: Ranker,
        metrics: RetrievalMetrics,
        key_of: Callable[[str], str | None] = lambda _: None,
        remaker: Remaker | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._embedder = embedder
        self._ranker = ranker
        self.breakers = Breakers()
        self._metrics = metrics
        self._key_of = key_of
        self._remaker = remaker
        self._now = now
        self._held: dict[str, Held] = {}
        self._stores: dict[str, Store] = {}
        self._owner: ShardOwner | None = None
        self._opening = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self.on_drop: Callable[[str], Awaitable[object]] = _nothing
        """Called before a collection's data is removed."""
        self.on_open: Callable[[str], Awaitable[object]] = _nothing
        """Called once a collection is open."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when what `reported` returns may have changed."""

    def names(self) -> list[str]:
        """Return the names of all wanted collections."""
        return sorted(self._held)

    def embedding_with(self, models: Sequence[str]) -> list[str]:
        """Return the names of the collections that embed with a model of these names."""
        return [name for name in self.names() if self._held[name].models & set(models)]

    def reported(self) -> tuple[ReportedCollection, ...]:
        """Return the entry of every wanted collection in the pod's report."""
        for held in self._held.values():
            self.refresh(held)
        return tuple(self._held[name].reported() for name in self.names())

    def held(self, name: str, known: Callable[[], Sequence[str]] | None = None) -> Held:
        """Return a collection by its name or an alias of it, ready or not.

        Raises CollectionNotFound, which lists all names, or those that are `known` to who asks.
        """
        held = self._held.get(name) or self._by_alias(name)
        if held is None:
            listed = ", ".join((known or self.names)()) or "none"
            raise CollectionNotFound(
                f"there is no collection {name!r}; there are: {listed}", param="collection"
            )
        return held

    def _by_alias(self, alias: str) -> Held | None:
        return next((h for h in self._held.values() if alias in h.aliases), None)

    def find(self, name: str) -> Collection:
        """Return a collection; raises CollectionNotFound or CollectionUnavailable."""
        held = self.held(name)
        if held.collection is None:
            raise _unavailable(name, held.problem)
        return held.collection

    def ingestion(self, name: str) -> Ingestion:
        """Return a collection's ingestion; raises as `find` does."""
        held = self.held(name)
        if held.ingestion is None:
            raise _unavailable(name, held.problem)
        return held.ingestion

    def searcher(self, name: str) -> Searcher:
        """Return what searches a collection; raises as `find` does."""
        held = self.held(name)
        if held.searcher is None:
            raise _unavailable(name, held.problem)
        return held.searcher

    async def operation(self, operation_id: str) -> tuple[str, Operation]:
        """Return an operation and its collection's name; raises OperationNotFound."""
        for name, held in self._held.items():
            if held.ingestion is not None:
                found = await held.ingestion.operation(operation_id)
                if found is not None:
                    return name, found
        raise OperationNotFound(f"there is no operation {operation_id!r}")

    async def apply(self, wanted: Sequence[DesiredCollection]) -> None:
        """Begin to bring wanted collections about; what is no longer wanted is closed and kept."""
        by_name = {each.name: each for each in wanted}
        for name, old in list(self._held.items()):
            desired_now = by_name.get(name)
            if desired_now is None or _place(desired_now) != _place(old.desired):
                await self._close(self._held.pop(name))
        for name, desired in by_name.items():
            held = self._held.get(name)
            if held is None:
                held = self._held[name] = Held(desired)
                bring = self._drop if desired.dropped else self._open
                held.task = asyncio.create_task(self._brought(held, bring))
            else:
                before, held.desired = held.desired, desired
                if before.spec != desired.spec:
                    self._take_on(held)
        if self._held and self._looking is None:
            self._looking = asyncio.create_task(self._look())
        self.on_change()

    async def close(self) -> None:
        """Close everything; nothing that was accepted is lost."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        for held in list(self._held.values()):
            await self._close(held)
        self._held.clear()
        for store in self._stores.values():
            await store.close()
        self._stores.clear()
        if self._owner is not None:
            await self._owner.close()
            self._owner = None

    def _take_on(self, held: Held) -> None:
        """Apply at once what acts at once; say what a reindex would have to do."""
        if held.collection is None:
            return  # it is opened with what is wanted by then
        held.collection.with_spec(held.desired.spec)
        held.differences = self._differences(held, held.collection.layout)
        if not held.is_open:
            return  # its opening ends with what is wanted by then, and must not be cut short
        if held.task is not None:
            held.task.cancel()
        held.task = asyncio.create_task(self._brought(held, self._extend))

    async def _extend(self, held: Held) -> None:
        """Index the fields that are wanted now, and align the aliases; all else goes on."""
        collection = held.collection
        if collection is None:
            return
        store, physical = collection.store, collection.physical
        found = await store.describe(physical)
        if found is None:
            raise StoreRefused(f"the store has no {physical!r} any more")
        await index_fields(held.desired.spec, store, physical, found.payload_indexes)
        await held.align()

    def refresh(self, held: Held) -> None:
        """Note what differs from the spec, as of now: a reindex changes it."""
        if held.collection is not None:
            held.differences = self._differences(held, held.collection.layout)

    def _differences(self, held: Held, found: Layout) -> list[str]:
        spec = held.desired.spec
        width = found.token_width or ANY_WIDTH
        result = differences(layout_of(spec, found.dimensions, width), found)
        collection = held.collection
        if collection is not None and collection.model != spec.embedding.model_deployment:
            wanted = spec.embedding.model_deployment
            result.append(f"model is {collection.model}, wanted is {wanted}")
        return result

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # Side by side: one whose store does not answer is no reason to know nothing of others.
            await asyncio.gather(*(held.look() for held in list(self._held.values())))
            self.on_change()

    async def _brought(self, held: Held, bring: Callable[[Held], Awaitable[None]]) -> None:
        """Open a collection, or remove its data, however often it takes."""
        attempt = 0
        while True:
            try:
                await bring(held)
            except (ServingError, StoreError, VolumeError, OSError, sqlite3.Error) as error:
                attempt += 1
                pause = load_delay(attempt, 0)
                held.problem = f"{error}"
                waits = isinstance(error, ServingError) and error.status in OPENING_STATUSES
                held.state = CollectionState.OPENING if waits else CollectionState.FAILED
                log.warning(
                    "a collection cannot be removed"
                    if held.desired.dropped
                    else "a collection cannot be opened or changed",
                    collection=held.desired.name,
                    error=held.problem,
                    again_in=pause,
                )
                self.on_change()
                await asyncio.sleep(pause)
            else:
                self.on_change()
                return

    async def _drop(self, held: Held) -> None:
        """Remove all that there is of a collection, the log last: it says what there is."""
        name = held.desired.name
        held.problem = "its data is being deleted"
        folder = self._folder / name
        await self.on_drop(name)
        if await asyncio.to_thread((folder / LOG_FILE).exists):
            store = await self._store(held.desired.spec)
            changes = await self._changes(name, store)
            try:
                routing = await changes.open()
                targets = {each.body.get("target") for each in await changes.jobs()}
            finally:
                await changes.close()
            named = {*(routing.named if routing else ()), *targets} - {None}
            for physical in sorted(map(str, named)):
                await store.drop(physical)
            await asyncio.to_thread(shutil.rmtree, folder)
        held.state, held.problem = CollectionState.DROPPED, "its data was deleted"
        log.info("collection removed", collection=name)

    async def _open(self, held: Held) -> None:
        if held.collection is None:
            await self._open_store(held)
        await held.align()
        await held.look()
        await self.on_open(held.desired.name)
        # The spec may have changed meanwhile.
        await self._extend(held)
        held.is_open = True

    async def _open_store(self, held: Held) -> None:
        name, spec = held.desired.name, held.desired.spec
        held.problem = "its store is being opened"
        store = await self._store(spec)
        changes = await self._changes(name, store)
        try:
            routing = await changes.open()
            if routing is None:
                held.problem = f"it waits for model {spec.embedding.model_deployment!r}"
                routing = await made(name, spec, store, self._embedder)
            found = await described(store, name, routing)
            await index_fields(spec, store, routing.read, found.payload_indexes)
            await changes.start(routing)
        except BaseException:
            await changes.close()
            raise
        view = view_of(spec, routing, routing.read, found.layout)
        collection = Collection(name, view, store, changes, self._embedder, self._metrics)
        path = self._folder / name / DOCUMENTS_FILE
        documents = await asyncio.to_thread(DocumentsFile, path, self._now)
        held.collection = collection
        held.searcher = Searcher(collection, self._ranker, self.breakers)
        held.ingestion = Ingestion(collection, documents)
        await held.ingestion.start()
        held.differences = self._differences(held, found.layout)
        log.info("collection opened", collection=name, physical=routing.read)

    async def _changes(self, name: str, store: Store) -> ChangeLog:
        path = self._folder / name / LOG_FILE
        file = await asyncio.to_thread(LogFile, path, self._now)
        return ChangeLog(file, store, now=self._now, remaker=self._remaker)

    async def _store(self, spec: VectorCollectionSpec) -> Store:
        """Return the store of a collection, opening it for the first who wants it."""
        async with self._opening:
            if spec.store is None or spec.store.type is StoreType.EMBEDDED:
                return await self._embedded()
            url = spec.store.url or ""
            if url not in self._stores:
                key_now = partial(self._key_of, urlsplit(url).hostname or "")
                opened = partial(QdrantStore, url, key_now(), key_now=key_now)
                self._stores[url] = await asyncio.to_thread(opened)
            return self._stores[url]

    async def _embedded(self) -> Store:
        if self._owner is None:
            owner = ShardOwner(self._folder / ".shards")
            await owner.start()
            self._owner = owner
            self._stores[""] = await asyncio.to_thread(EmbeddedStore, owner.url, owner.key)
        return self._stores[""]

    async def _close(self, held: Held) -> None:
        if held.task is not None:
            held.task.cancel()
            await asyncio.gather(held.task, return_exceptions=True)
        if held.ingestion is not None:
            await held.ingestion.close()
        if held.collection is not None:
            await held.collection.changes.close()
            self._metrics.forget(held.desired.name)


async def _nothing(_: str) -> None:
    """Do nothing."""


def _place(desired: DesiredCollection) -> tuple[bool, str]:
    """Return whether a collection is only to be removed, and its server; none: this machine."""
    store = desired.spec.store
    return desired.dropped, (store.url or "") if store is not None else ""


def _unavailable(name: str, why: str) -> CollectionUnavailable:
    return CollectionUnavailable(
        f"collection {name!r} is not ready: {why}", retry_after=RETRY_SECONDS
    )
