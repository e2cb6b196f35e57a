"""Shelf: vectors on this pod's disk, which outlive its process and its memory's shortages."""

import asyncio
import hashlib
import pathlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import msgpack
import structlog
import zstandard

from ullage_runtime.core.cache import CacheKey, Size
from ullage_runtime.core.pooled import Said, SparseVector, TokenVectors
from ullage_runtime.database import opened, transaction

SHELF_FILE: Final = "vectors.db"
MAX_WAITING: Final = 32
"""Requests whose vectors wait to be written; what comes when there are as many is not kept."""
SAME_USE_SECONDS: Final = 60.0
"""A use this soon after one that was noted is not: every read would be a write."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS vectors (
  key BLOB PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, expires REAL NOT NULL,
  used REAL NOT NULL, digest BLOB NOT NULL, packed BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON vectors (used);
CREATE INDEX IF NOT EXISTS by_end ON vectors (expires);
CREATE INDEX IF NOT EXISTS by_model ON vectors (model);
"""
_LEAVING_AT_ONCE: Final = 64
_DIGEST_BYTES: Final = 16

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Vector:
    """What was computed of one text."""

    said: Said
    tokens: int


@dataclass(frozen=True, slots=True)
class Found:
    """A vector that was kept, and for how many more seconds it may be."""

    vector: Vector
    seconds: float


class Shelf:
    """Vectors within so many bytes of a file; those used least recently leave first.

    A thread of its own reads and writes. What cannot be read, or is not what was written, is as if
    it had never been kept: nothing here fails a request. `now` is the time of day in seconds, and
    `version` that of the code, as another may compute otherwise.
    """

    def __init__(
        self, path: pathlib.Path, max_bytes: int, *, now: Callable[[], float], version: str
    ) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        """What its entries take of the file, as of what was last done."""
        self._path = path
        self._now = now
        self._version = version
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shelf")
        self._waiting = 0
        self._fails = False

    async def find(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Found]:
        """Return what is kept of some texts."""
        return await self._asked(lambda db: self._found(db, keys), {})

    async def size(self) -> Size:
        """Return how much there is, entries that have expired included."""
        return await self._asked(lambda db: Size(_entries(db), _bytes(db)), Size(0, 0))

    def keep(self, vectors: Mapping[CacheKey, Vector], seconds: float) -> None:
        """Write vectors down, later, unless too many wait for it; with the event loop's thread."""
        if self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        expires = self._now() + seconds
        kept = dict(vectors)
        writing = self._submitted(lambda db: self._keep(db, kept, expires), None)
        loop = asyncio.get_running_loop()

        def written(_: "Future[None]") -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(self._written)

        writing.add_done_callback(written)

    async def clear(self, *, model: str | None = None, tenant: str | None = None) -> Size:
        """Forget everything, or only what is of one model or tenant; return how much it was."""
        return await self._asked(lambda db: self._clear(db, model, tenant), Size(0, 0))

    def forget(self, model: str) -> None:
        """Forget a model that is gone, later."""
        self._submitted(lambda db: self._clear(db, model, None), Size(0, 0))

    async def close(self) -> None:
        """Write what waits, and let go of the file; idempotent."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._db is not None:
            self._db.close()
            self._db = None

    def _written(self) -> None:
        self._waiting -= 1

    # On the shelf's own thread ------------------------------------------------------------------

    async def _asked(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        return await asyncio.wrap_future(self._submitted(work, otherwise))

    def _submitted(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> "Future[T]":
        return self._thread.submit(self._done, work, otherwise)

    def _done(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        try:
            if self._db is None:
                self._db = opened(self._path, _SCHEMA, "synchronous = NORMAL")
            result = work(self._db)
            self.bytes = _bytes(self._db)
        except sqlite3.DatabaseError as error:
            self._given_up(error)
            return otherwise
        except OSError as error:
            self._tell(error)
            return otherwise
        self._fails = False
        return result

    def _given_up(self, error: sqlite3.DatabaseError) -> None:
        self._tell(error)
        if isinstance(error, sqlite3.OperationalError):
            return  # full or locked, not broken
        if self._db is not None:
            self._db.close()
            self._db = None
        for ending in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def _tell(self, error: Exception) -> None:
        if not self._fails:
            log.warning("vectors are not kept on disk", file=str(self._path), error=str(error))
        self._fails = True

    def _found(self, db: sqlite3.Connection, keys: Sequence[CacheKey]) -> dict[CacheKey, Found]:
        now = self._now()
        found: dict[CacheKey, Found] = {}
        used, lost = [], []
        for key in keys:
            name = self._name(key)
            row = db.execute(
                "SELECT digest, packed, expires, used FROM vectors WHERE key = ?", (name,)
            ).fetchone()
            if row is None:
                continue
            digest, packed, expires, last = row
            if expires <= now or digest != _digest(name, packed):
                lost.append((name,))
                continue
            found[key] = Found(_unpacked(packed), expires - now)
            if now - last >= SAME_USE_SECONDS:
                used.append((now, name))
        if used or lost:
            with transaction(db):
                db.executemany("UPDATE vectors SET used = ? WHERE key = ?", used)
                db.executemany("DELETE FROM vectors WHERE key = ?", lost)
        return found

    def _keep(
        self, db: sqlite3.Connection, vectors: Mapping[CacheKey, Vector], expires: float
    ) -> None:
        now = self._now()
        rows = []
        for key, vector in vectors.items():
            name, packed = self._name(key), _packed(vector)
            rows.append((name, key.tenant, key.model, expires, now, _digest(name, packed), packed))
        with transaction(db):
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.execute("DELETE FROM vectors WHERE expires <= ?", (now,))
            while _bytes(db) > self.max_bytes and _leave(db):
                pass

    def _clear(self, db: sqlite3.Connection, model: str | None, tenant: str | None) -> Size:
        before = _bytes(db)
        given = {"model": model, "tenant": tenant}
        gone = db.execute(
            "DELETE FROM vectors WHERE (:model IS NULL OR model = :model)"
            " AND (:tenant IS NULL OR tenant = :tenant)",
            given,
        ).rowcount
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Size(gone, max(0, before - _bytes(db)))

    def _name(self, key: CacheKey) -> bytes:
        parts = (self._version, key.tenant, key.model, key.revision, key.asked)
        return hashlib.sha256(msgpack.packb(parts)).digest()


def _leave(db: sqlite3.Connection) -> bool:
    """Have those leave that were used least recently; False when there are none."""
    gone = db.execute(
        "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used, rowid LIMIT ?)",
        (_LEAVING_AT_ONCE,),
    )
    return gone.rowcount > 0


def _entries(db: sqlite3.Connection) -> int:
    return _number(db, "SELECT count(*) FROM vectors")


def _bytes(db: sqlite3.Connection) -> int:
    pages = _number(db, "PRAGMA page_count") - _number(db, "PRAGMA freelist_count")
    return pages * _number(db, "PRAGMA page_size")


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])


def _digest(name: bytes, packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=_DIGEST_BYTES, key=name).digest()


def _packed(vector: Vector) -> bytes:
    said, sparse, colbert = vector.said, vector.said.sparse, vector.said.colbert
    parts = (
        vector.tokens,
        said.values,
        None if sparse is None else (sparse.tokens, sparse.weights),
        None if colbert is None else (colbert.values, colbert.width),
    )
    return zstandard.compress(msgpack.packb(parts))


def _unpacked(packed: bytes) -> Vector:
    tokens, values, sparse, colbert = msgpack.unpackb(zstandard.decompress(packed))
    said = Said(
        values,
        None if sparse is None else SparseVector(*sparse),
        None if colbert is None else TokenVectors(*colbert),
    )
    return Vector(said, tokens)
