"""Stored responses: a SQLite file that is bounded in bytes, in number and in time.

Turns of one conversation share their items, so that a conversation of n turns takes the room of n
turns and not of n². Every look-up names the tenant; nothing is found without it. When there is too
much, the tenant that takes most gives up what it has not used for longest: nobody can push out
somebody else's conversations by talking a lot.
"""

import hashlib
import json
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ullage_runtime.database import opened, transaction

log = structlog.stdlib.get_logger(__name__)

Item = dict[str, Any]
"""One item of a conversation, as the API writes it."""

LARGEST_SHARE: Final = 4
"""One response may take a quarter of the room at most."""
SPARE_SHARE: Final = 20
"""When the room is used up, a twentieth of it is cleared at once."""

_PRAGMAS: Final = (
    # The last answers may be lost with the machine's power, never the file.
    "synchronous = NORMAL",
    "foreign_keys = ON",
    # What is deleted is gone from the disk too.
    "secure_delete = ON",
)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS responses (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  created REAL NOT NULL,
  used REAL NOT NULL,
  bytes INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_use ON responses (tenant, used, bytes);
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created);
CREATE TABLE IF NOT EXISTS items (
  key INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  digest BLOB NOT NULL,
  id TEXT NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (tenant, digest)
);
CREATE INDEX IF NOT EXISTS items_by_id ON items (tenant, id);
CREATE TABLE IF NOT EXISTS uses (
  response INTEGER NOT NULL REFERENCES responses (key) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  is_output INTEGER NOT NULL,
  item INTEGER NOT NULL REFERENCES items (key),
  PRIMARY KEY (response, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uses_by_item ON uses (item);
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept."""

    max_bytes: int
    """Bytes of the file, less what is free in it."""
    max_count: int
    seconds: float
    """How long a response is kept."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A response as it was answered, and all the items it was the answer to."""

    response: dict[str, Any]
    context: tuple[Item, ...]

    @property
    def conversation(self) -> tuple[Item, ...]:
        """What the next question builds on."""
        return (*self.context, *self.response["output"])


class ResponseStore:
    """The file; to be used by one thread."""

    def __init__(self, path: pathlib.Path, bounds: Bounds, now: Callable[[], float]) -> None:
        self._path = path
        self._bounds = bounds
        self._now = now
        self._connection: sqlite3.Connection | None = None

    def save(self, tenant: str, stored: Stored) -> bool:
        """Keep a response; False when it is larger than one may be."""
        body = _text({k: v for k, v in stored.response.items() if k != "output"})
        items = [*((0, i) for i in stored.context), *((1, i) for i in stored.response["output"])]
        texts = [(is_output, item["id"], _text(item)) for is_output, item in items]
        size = len(body) + sum(len(text) for _, _, text in texts)
        if size > self._bounds.max_bytes // LARGEST_SHARE:
            log.warning("a response is too large to be kept", tenant=tenant, bytes=size)
            return False
        with self._transaction() as db:
            self._insert(db, tenant, stored.response["id"], body, texts)
            self._make_room(db)
        return True

    def get(self, tenant: str, response_id: str) -> Stored | None:
        """Return a tenant's response, which counts as used now."""
        with self._transaction() as db:
            row = _one(
                db,
                "SELECT key, body FROM responses WHERE id = ? AND tenant = ? AND created > ?",
                (response_id, tenant, self._now() - self._bounds.seconds),
            )
            if row is None:
                return None
            key, body = row
            db.execute("UPDATE responses SET used = ? WHERE key = ?", (self._now(), key))
            rows = db.execute(
                "SELECT is_output, items.body FROM uses JOIN items ON items.key = item "
                "WHERE response = ? ORDER BY position",
                (key,),
            ).fetchall()
        output = [json.loads(text) for is_output, text in rows if is_output]
        context = tuple(json.loads(text) for is_output, text in rows if not is_output)
        return Stored({**json.loads(body), "output": output}, context)

    def item(self, tenant: str, item_id: str) -> Item | None:
        """Return a tenant's item, as last stored."""
        with self._transaction() as db:
            row = _one(
                db,
                "SELECT body FROM items WHERE tenant = ? AND id = ? ORDER BY key DESC LIMIT 1",
                (tenant, item_id),
            )
        return None if row is None else json.loads(row[0])

    def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a tenant's response and the items only it has; False if there is none."""
        with self._transaction() as db:
            row = _one(
                db,
                "SELECT key FROM responses WHERE id = ? AND tenant = ?",
                (response_id, tenant),
            )
            if row is None:
                return False
            _forget(db, row[0])
        return True

    def size(self) -> Size:
        """Return how much is stored."""
        with self._transaction() as db:
            return _size(db)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _insert(
        self,
        db: sqlite3.Connection,
        tenant: str,
        response_id: str,
        body: str,
        texts: Iterable[tuple[int, str, str]],
    ) -> None:
        now = self._now()
        size, keys = len(body), []
        for is_output, item_id, text in texts:
            key, is_new = _item_key(db, tenant, item_id, text)
            keys.append((is_output, key))
            size += len(text) if is_new else 0
        response = db.execute(
            "INSERT INTO responses (id, tenant, created, used, bytes, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (response_id, tenant, now, now, size, body),
        ).lastrowid
        db.executemany(
            "INSERT INTO uses (response, position, is_output, item) VALUES (?, ?, ?, ?)",
            ((response, position, *use) for position, use in enumerate(keys)),
        )

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Forget what has expired, and then as much as is needed."""
        old = self._now() - self._bounds.seconds
        for (key,) in db.execute("SELECT key FROM responses WHERE created <= ?", (old,)).fetchall():
            _forget(db, key)
        if self._is_over(db):
            while self._is_over(db, SPARE_SHARE) and self._clear_some(db):
                pass

    def _clear_some(self, db: sqlite3.Connection) -> bool:
        """Forget what the largest tenant has not used for longest; False when none is left."""
        largest = _one(
            db, "SELECT tenant FROM responses GROUP BY tenant ORDER BY SUM(bytes) DESC LIMIT 1"
        )
        if largest is None:
            return False
        oldest = db.execute(
            "SELECT key FROM responses WHERE tenant = ? ORDER BY used, key LIMIT 16", largest
        ).fetchall()
        for (key,) in oldest:
            _forget(db, key)
            if not self._is_over(db, SPARE_SHARE):
                break
        return True

    def _is_over(self, db: sqlite3.Connection, spare: int | None = None) -> bool:
        """Tell whether there is too much, or less than a share to spare."""
        size, bounds = _size(db), self._bounds
        most, largest = bounds.max_count, bounds.max_bytes
        if spare is not None:
            most, largest = most - most // spare, largest - largest // spare
        return size.count > most or size.bytes > largest

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            self._connection = opened(self._path, _SCHEMA, *_PRAGMAS, on_broken=_tell)
        with transaction(self._connection) as db:
            yield db


def _tell(broken: pathlib.Path, error: sqlite3.DatabaseError) -> None:
    # Better to lose conversations than to keep none until somebody comes to mend it.
    log.error("the stored responses cannot be read", moved_to=str(broken), error=str(error))


def _item_key(db: sqlite3.Connection, tenant: str, item_id: str, text: str) -> tuple[int, bool]:
    """Return the key of an item, and whether it is new."""
    digest = hashlib.sha256(text.encode()).digest()
    row = _one(db, "SELECT key FROM items WHERE tenant = ? AND digest = ?", (tenant, digest))
    if row is not None:
        return row[0], False
    cursor = db.execute(
        "INSERT INTO items (tenant, digest, id, body) VALUES (?, ?, ?, ?)",
        (tenant, digest, item_id, text),
    )
    return int(cursor.lastrowid or 0), True


def _forget(db: sqlite3.Connection, key: int) -> None:
    items = db.execute("SELECT item FROM uses WHERE response = ?", (key,)).fetchall()
    db.execute("DELETE FROM responses WHERE key = ?", (key,))
    db.executemany(
        "DELETE FROM items WHERE key = ? "
        "AND NOT EXISTS (SELECT 1 FROM uses WHERE item = items.key)",
        items,
    )


def _one(db: sqlite3.Connection, question: str, values: Sequence[object] = ()) -> Any:
    with closing(db.execute(question, values)) as cursor:
        return cursor.fetchone()


def _size(db: sqlite3.Connection) -> Size:
    (pages,), (free,), (size,), (count,) = (
        _one(db, question)
        for question in (
            "PRAGMA page_count",
            "PRAGMA freelist_count",
            "PRAGMA page_size",
            "SELECT COUNT(*) FROM responses",
        )
    )
    return Size(count=count, bytes=(pages - free) * size)


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
