"""The log's file: SQLite, on the disk before anybody is told that something is accepted."""

import json
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ullage_runtime.database import opened, transaction
from ullage_runtime.retrieval.log.records import Record, decoded, encoded
from ullage_runtime.retrieval.making import Making
from ullage_runtime.retrieval.room import ROOM_TO_ACCEPT, check_room
from ullage_runtime.retrieval.stores.port import Point, PointId

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS log (
  version INTEGER PRIMARY KEY AUTOINCREMENT,
  created REAL NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS applied (
  target TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
  version INTEGER NOT NULL,
  target TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (version, target)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS routing (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL,
  read TEXT NOT NULL,
  write TEXT NOT NULL,
  model TEXT NOT NULL,
  others TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS failed (
  target TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (target, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS aliases (
  name TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reindexes (
  uid TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (
  uid TEXT PRIMARY KEY,
  body TEXT NOT NULL
) WITHOUT ROWID;
"""

Model = dict[str, Any]
"""What a physical collection's vectors are made with: name, revision, dimensions, sparse."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Which physical collections are read and written, and what their vectors were made with."""

    epoch: int
    read: str
    write: tuple[str, ...]
    model: Model
    """Of what is read."""
    others: Mapping[str, Model] = field(default_factory=dict)
    """Of what is written besides."""

    def model_of(self, target: str) -> Model:
        """Return what a physical collection's vectors are made with."""
        return self.model if target == self.read else self.others.get(target, self.model)

    def making_of(self, target: str) -> Making:
        """Return the same, as far as it decides what can be compared."""
        return Making.of(self.model_of(target))

    @property
    def named(self) -> frozenset[str]:
        """Physical collections that must not be removed."""
        return frozenset({self.read, *self.write})


@dataclass(frozen=True, slots=True)
class FailedWrite:
    """A point whose vectors could not be made for a physical collection."""

    id: PointId
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class KeptJob:
    """A reindex job's durable record."""

    uid: str
    name: str
    body: dict[str, Any]


class LogFile:
    """A collection's log; to be used by one thread at a time."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._now = now
        self._folder = path.parent
        # Accepted means on the disk.
        self._db = opened(path, _SCHEMA, "synchronous = FULL")
        _migrate(self._db)

    def append(self, points: Sequence[Point], made_with: Making | None = None) -> int:
        """Accept a mutation and return its version; raises OSError where there is no room."""
        if not all(point.is_tombstone for point in points):
            check_room(self._folder, ROOM_TO_ACCEPT)
        with transaction(self._db) as db:
            return int(
                db.execute(
                    "INSERT INTO log (created, body) VALUES (?, ?)",
                    (self._now(), encoded(points, made_with)),
                ).lastrowid
                or 0
            )

    def tip(self) -> int:
        """Return the version of the last mutation, or 0."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'log'").fetchone()
        return int(row[0]) if row else 0

    def after(self, version: int, limit: int) -> list[Record]:
        """Return the first mutations after a version."""
        rows = self._db.execute(
            "SELECT version, body FROM log WHERE version > ? ORDER BY version LIMIT ?",
            (version, limit),
        ).fetchall()
        return [decoded(number, body) for number, body in rows]

    def applied(self, target: str) -> int:
        """Return the version up to which a physical collection has everything."""
        row = self._db.execute("SELECT version FROM applied WHERE target = ?", (target,)).fetchone()
        return int(row[0]) if row else 0

    def note_applied(self, target: str, version: int, refused: Sequence[tuple[int, str]]) -> None:
        """Note that a physical collection has everything up to a version, but for the refused."""
        with transaction(self._db) as db:
            db.execute(
                "INSERT INTO applied VALUES (?, ?) ON CONFLICT (target) DO UPDATE "
                "SET version = excluded.version WHERE excluded.version > version",
                (target, version),
            )
            db.executemany(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?)",
                ((number, target, reason) for number, reason in refused),
            )

    def refused(self, target: str) -> dict[int, str]:
        """Return the mutations that a physical collection would not take, with the reasons."""
        rows = self._db.execute("SELECT version, reason FROM refused WHERE target = ?", (target,))
        return dict(rows.fetchall())

    def note_failed(
        self, target: str, version: int, ids: Sequence[PointId], failed: Sequence[FailedWrite]
    ) -> None:
        """Note which of the points that were written last could not be made, and no others."""
        with transaction(self._db) as db:
            db.executemany(
                "DELETE FROM failed WHERE target = ? AND id = ? AND version <= ?",
                ((target, json.dumps(each), version) for each in ids),
            )
            db.executemany(
                "INSERT INTO failed VALUES (?, ?, ?, ?) ON CONFLICT (target, id) DO UPDATE SET "
                "version = excluded.version, reason = excluded.reason "
                "WHERE excluded.version >= version",
                ((target, json.dumps(f.id), f.version, f.reason) for f in failed),
            )

    def failed(self, target: str, limit: int) -> tuple[int, list[FailedWrite]]:
        """Return how many points could not be made for a physical collection, and some of them."""
        (count,) = self._db.execute(
            "SELECT COUNT(*) FROM failed WHERE target = ?", (target,)
        ).fetchone()
        rows = self._db.execute(
            "SELECT id, version, reason FROM failed WHERE target = ? ORDER BY id LIMIT ?",
            (target, limit),
        )
        return int(count), [FailedWrite(json.loads(i), v, r) for i, v, r in rows]

    def routing(self) -> Routing | None:
        """Return where reads and writes go; None for a new log."""
        row = self._db.execute("SELECT epoch, read, write, model, others FROM routing").fetchone()
        if row is None:
            return None
        epoch, read, write, model, others = row
        return Routing(epoch, read, tuple(json.loads(write)), json.loads(model), json.loads(others))

    def route(
        self,
        routing: Routing,
        *,
        begun: Mapping[str, int] | None = None,
        job: KeptJob | None = None,
    ) -> None:
        """Send reads and writes elsewhere, in one step with what a job notes of it.

        `begun` has physical collections that are written anew, from a version on.
        """
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR REPLACE INTO routing VALUES (1, ?, ?, ?, ?, ?)",
                (
                    routing.epoch,
                    routing.read,
                    json.dumps(routing.write),
                    json.dumps(routing.model),
                    json.dumps(dict(routing.others)),
                ),
            )
            for target, version in (begun or {}).items():
                db.execute("INSERT OR REPLACE INTO applied VALUES (?, ?)", (target, version))
                for table in ("refused", "failed"):
                    db.execute(f"DELETE FROM {table} WHERE target = ?", (target,))  # noqa: S608
            if job is not None:
                _keep(db, job)

    def jobs(self) -> list[KeptJob]:
        """Return the records of all reindex jobs."""
        rows = self._db.execute("SELECT uid, name, body FROM reindexes").fetchall()
        return [KeptJob(uid, name, json.loads(body)) for uid, name, body in rows]

    def keep_job(self, job: KeptJob) -> None:
        """Keep a reindex job's record."""
        with transaction(self._db) as db:
            _keep(db, job)

    def forget_job(self, uid: str) -> None:
        """Drop a reindex job's record and its checkpoint."""
        with transaction(self._db) as db:
            db.execute("DELETE FROM reindexes WHERE uid = ?", (uid,))
            db.execute("DELETE FROM checkpoints WHERE uid = ?", (uid,))

    def checkpoint(self, uid: str) -> dict[str, Any] | None:
        """Return how far a job's copy has come."""
        row = self._db.execute("SELECT body FROM checkpoints WHERE uid = ?", (uid,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def keep_checkpoint(self, uid: str, body: Mapping[str, Any]) -> None:
        """Keep how far a job's copy has come."""
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (uid, json.dumps(dict(body)))
            )

    def aliases(self) -> set[str]:
        """Return the store's aliases that may be this collection's."""
        return {name for (name,) in self._db.execute("SELECT name FROM aliases")}

    def note_aliases(self, names: Iterable[str]) -> None:
        """Note which aliases of the store may be this collection's."""
        with transaction(self._db) as db:
            db.execute("DELETE FROM aliases")
            db.executemany("INSERT INTO aliases VALUES (?)", ((name,) for name in names))

    def forgettable(self, before: float) -> int:
        """Return the version up to which everything is applied everywhere and older than a time."""
        routing = self.routing()
        if routing is None:
            return 0
        least = min(self.applied(target) for target in routing.write)
        row = self._db.execute(
            "SELECT MAX(version) FROM log WHERE version <= ? AND created < ?", (least, before)
        ).fetchone()
        return int(row[0] or 0)

    def forget(self, version: int) -> None:
        """Drop mutations up to a version; their numbers are never given again."""
        with transaction(self._db) as db:
            db.execute("DELETE FROM log WHERE version <= ?", (version,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _keep(db: sqlite3.Connection, job: KeptJob) -> None:
    db.execute(
        "INSERT OR REPLACE INTO reindexes VALUES (?, ?, ?)",
        (job.uid, job.name, json.dumps(job.body)),
    )


def _migrate(db: sqlite3.Connection) -> None:
    """Bring a file of an earlier release to this one's columns."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(routing)")}
    if "others" not in columns:
        db.execute("ALTER TABLE routing ADD COLUMN others TEXT NOT NULL DEFAULT '{}'")
