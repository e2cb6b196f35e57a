"""Documents on their way into a collection: a few at a time, behind whoever searches."""

import asyncio
import contextlib
import sqlite3
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog

from ullage_runtime.core.backoff import exponential
from ullage_runtime.core.errors import DocumentNotFound, InvalidRequest, ServingError
from ullage_runtime.retrieval.collection import TEXT, WAIT_SECONDS, Change, Collection, NewPoint
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.ingest.documents import (
    Document,
    DocumentsFile,
    Kept,
    Operation,
    Original,
    State,
)
from ullage_runtime.retrieval.ingest.splitting import CannotSplit, Chunker
from ullage_runtime.retrieval.stores.port import PointId

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

TENANT: Final = "ingestion"
"""Under whose name chunks are embedded: the model lets tenants take turns."""
BATCH: Final = 16
"""Chunks that are embedded together: the longest that somebody who searches waits behind."""
AT_ONCE: Final = 8
"""Documents that are worked on at the same time: the model has work while others are written."""
READ_AHEAD: Final = 64
"""Documents whose turn is looked up together."""
FIRST_PAUSE: Final = 0.5
PAUSE_LIMIT: Final = 30.0
DOCUMENT: Final = "document"
CHUNK: Final = "chunk"
"""Payload fields that say which part of which document a point is."""
FIELDS: Final = frozenset({TEXT, DOCUMENT, CHUNK})
_NAMESPACE: Final = uuid.UUID("5b2c1c5e-6f0b-5d8e-9a35-0f6f3c1d7a42")


def chunk_id(document: str, chunker: str, ordinal: int) -> PointId:
    """Return the id of a document's chunk: the same whenever it is made again."""
    return str(uuid.uuid5(_NAMESPACE, f"{chunker}/{ordinal}/{document}"))


class Ingestion:
    """The documents of one collection."""

    def __init__(self, collection: Collection, file: DocumentsFile) -> None:
        self._collection = collection
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._more = asyncio.Event()
        self._changed = asyncio.Condition()
        self._steps = 0
        self._is_closed = False
        self._choosing = asyncio.Lock()
        self._next: deque[str] = deque()
        self._in_hand: set[str] = set()
        self._held: dict[str, asyncio.Event] = {}
        self._lanes: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Go on with what is not finished."""
        self._more.set()
        self._lanes = [asyncio.create_task(self._run()) for _ in range(AT_ONCE)]

    async def close(self) -> None:
        """Stop; the next process goes on."""
        self._is_closed = True
        await self._note_step()
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    @property
    def chunker(self) -> Chunker:
        """How documents are cut."""
        return Chunker.of(self._collection.spec.chunking)

    async def accept(
        self,
        documents: Sequence[Document],
        originals: Mapping[str, Original] = MappingProxyType({}),
    ) -> Operation:
        """Keep documents and begin to index them; they are on the disk when this returns."""
        with told(self._collection.name):
            key = self.chunker.key
            operation = await self._on_file(partial(self._file.accept, documents, key, originals))
        self._more.set()
        # Others' operations may have fewer documents from now on.
        await self._note_step()
        found = await self.operation(operation)
        if found is None:
            raise RuntimeError(f"{operation} is gone as soon as it was made")
        return found

    async def operation(self, operation_id: str) -> Operation | None:
        """Return an operation as it stands."""
        return await self._on_file(partial(self._file.operation, operation_id))

    async def finished(self, operation_id: str, seconds: float) -> Operation | None:
        """Return an operation once it has finished, or as it stands after a while."""
        found = await self.operation(operation_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # It may go on after that; who asked is told how far it is.
                while found is not None and found.finished is None:
                    found = await self.further(found, seconds)
        return found

    async def further(self, than: Operation, seconds: float) -> Operation | None:
        """Return an operation once it has come further, or as it was after so many seconds.

        None when it is known no more, or its collection is being closed.
        """
        found: Operation | None = than
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while found == than and not self._is_closed:
                    seen = self._steps
                    found = await self.operation(than.id)
                    if found == than:
                        await self._step_after(seen)
        return None if self._is_closed else found

    async def _step_after(self, seen: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._steps != seen)

    async def _note_step(self) -> None:
        async with self._changed:
            self._steps += 1
            self._changed.notify_all()

    async def document(self, document_id: str) -> Kept:
        """Return a document; raises DocumentNotFound."""
        kept = await self._on_file(partial(self._file.get, document_id))
        if kept is None:
            raise DocumentNotFound(
                f"collection {self._collection.name!r} has no document {document_id!r}"
            )
        return kept

    async def original(self, document_id: str) -> Original:
        """Return the file that a document was read from; raises DocumentNotFound."""
        await self.document(document_id)
        found = await self._on_file(partial(self._file.original, document_id))
        if found is None:
            raise DocumentNotFound(
                f"document {document_id!r} was text already; it is shown as it was given"
            )
        return found

    async def count(self) -> int:
        """Return how many documents there are."""
        return await self._on_file(self._file.count)

    async def cut_otherwise(self) -> int:
        """Return how many documents are not yet cut as is wanted now."""
        return await self._on_file(partial(self._file.cut_otherwise, self.chunker.key))

    async def cut_again(self) -> int:
        """Have documents be cut again that were cut otherwise; return how many that is."""
        count = await self._on_file(partial(self._file.cut_again, self.chunker.key))
        self._more.set()
        return count

    async def delete(self, document_id: str, *, wait: bool) -> Change:
        """Forget a document and have its chunks be no more."""
        await self.document(document_id)
        where = {"must": [{"key": DOCUMENT, "match": {"value": document_id}}]}
        async with self._holding(document_id):
            # First the document, so that nobody indexes it again; then all its chunks there may be.
            await self._on_file(partial(self._file.delete, document_id))
            await self._note_step()
            return await self._collection.delete_where(where, wait=wait)

    @contextlib.asynccontextmanager
    async def _holding(self, document_id: str) -> AsyncIterator[None]:
        """Have a document to oneself: one that is being indexed is not deleted meanwhile."""
        while (held := self._held.get(document_id)) is not None:
            await held.wait()
        free = self._held[document_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._held[document_id]
            free.set()

    async def _run(self) -> None:
        """Index one pending document after the other; runs until cancelled."""
        failures = 0
        while True:
            document_id = await self._chosen()
            try:
                if await self._tried(document_id):
                    failures = 0
                else:
                    failures += 1
                    await asyncio.sleep(exponential(failures, FIRST_PAUSE, PAUSE_LIMIT))
            finally:
                self._in_hand.discard(document_id)
                # It may be pending again, brought anew meanwhile, and was passed over.
                self._more.set()

    async def _chosen(self) -> str:
        """Return the next document that is pending and in nobody's hands, once there is one."""
        async with self._choosing:
            while not self._next:
                await self._more.wait()
                self._more.clear()
                pending = await self._pending(len(self._in_hand) + READ_AHEAD)
                self._next.extend(each for each in pending if each not in self._in_hand)
            document_id = self._next.popleft()
            self._in_hand.add(document_id)
            return document_id

    async def _pending(self, limit: int) -> list[str]:
        try:
            return await self._on_file(partial(self._file.pending, limit))
        except (sqlite3.Error, OSError) as error:
            log.error("documents cannot be read", error=str(error), again_in=PAUSE_LIMIT)  # noqa: TRY400
            await asyncio.sleep(PAUSE_LIMIT)
            self._more.set()
            return []

    async def _tried(self, document_id: str) -> bool:
        """Bring a document to its end; False when that has to be tried again."""
        try:
            async with self._holding(document_id):
                await self._settle(document_id)
        except (ServingError, sqlite3.Error, OSError) as error:
            log.warning("indexing waits", document=document_id, error=str(error))
            return False
        await self._note_step()
        return True

    async def _settle(self, document_id: str) -> None:
        """Index a document, if it is still pending; a bad one fails alone, with its reason."""
        kept = await self._on_file(partial(self._file.get, document_id))
        if kept is None or kept.state is not State.PENDING:
            return
        try:
            await self._index(kept)
        except (InvalidRequest, CannotSplit) as error:
            log.warning("a document cannot be indexed", document=document_id, error=str(error))
            reason = str(error)
        except (ServingError, sqlite3.Error, OSError):
            raise
        except Exception as error:
            # Whatever it is about this document, the others are to be indexed.
            log.exception("a document cannot be indexed", document=document_id)
            reason = f"unexpected: {error!r}"
        else:
            return
        await self._on_file(partial(self._file.note_failed, kept.document, reason))

    async def _index(self, kept: Kept) -> None:
        document, chunker = kept.document, self.chunker
        collection = self._collection

        async def lengths(texts: Sequence[str]) -> list[int]:
            return await collection.embedder.lengths(collection.model, texts)

        chunks = await chunker.chunks(document.text, lengths, document.id)
        if not chunks:
            raise InvalidRequest("the document has no text")
        begun = partial(self._file.note_begun, document, chunker.key, len(chunks))
        await self._on_file(begun)
        versions = []
        for first in range(0, len(chunks), BATCH):
            points = [
                NewPoint(
                    chunk_id(document.id, chunker.key, first + offset),
                    {**document.metadata, DOCUMENT: document.id, CHUNK: first + offset},
                    text,
                )
                for offset, text in enumerate(chunks[first : first + BATCH])
            ]
            change = await collection.upsert(points, wait=False, tenant=TENANT, urgent=False)
            versions.append(change.version)
        stale = _stale(kept, chunker.key, len(chunks))
        if stale:
            versions.append((await collection.delete(stale, wait=False)).version)
        with told(collection.name):
            for version in versions:
                await collection.changes.wait(version, WAIT_SECONDS)
        note = partial(self._file.note_done, document, chunker.key, len(chunks))
        await self._on_file(note)

    async def _on_file(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _stale(kept: Kept, chunker: str, count: int) -> list[PointId]:
    """Return the ids of chunks that the document had before and has no more."""
    first = count if kept.chunker == chunker else 0
    return [chunk_id(kept.document.id, kept.chunker, n) for n in range(first, kept.chunks)]


def checked_metadata(metadata: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a document's metadata; raises InvalidRequest for names that its chunks use."""
    taken = sorted(FIELDS & set(metadata))
    if taken:
        raise InvalidRequest(f"{where}.{taken[0]} is a name that chunks use", param=where)
    return metadata
