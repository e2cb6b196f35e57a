"""The log's file: SQLite, on the disk before anybody is told that something is accepted."""

import json
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ullage_runtime.database import opened, transaction
from ullage_runtime.retrieval.log.records import Record, decoded, encoded
from ullage_runtime.retrieval.stores.port import Point

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
  model TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Routing:
    """Which physical collections are read and written, and what their vectors were made with."""

    epoch: int
    read: str
    write: tuple[str, ...]
    model: dict[str, Any]


class LogFile:
    """A collection's log; to be used by one thread at a time."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._now = now
        # Accepted means on the disk.
        self._db = opened(path, _SCHEMA, "synchronous = FULL")

    def append(self, points: Sequence[Point]) -> int:
        """Accept a mutation and return its version."""
        with transaction(self._db) as db:
            return int(
                db.execute(
                    "INSERT INTO log (created, body) VALUES (?, ?)", (self._now(), encoded(points))
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
        return [Record(number, decoded(body)) for number, body in rows]

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

    def routing(self) -> Routing | None:
        """Return where reads and writes go; None for a new log."""
        row = self._db.execute("SELECT epoch, read, write, model FROM routing").fetchone()
        if row is None:
            return None
        return Routing(row[0], row[1], tuple(json.loads(row[2])), json.loads(row[3]))

    def route(self, routing: Routing) -> None:
        """Send reads and writes elsewhere, in one step."""
        with transaction(self._db) as db:
            db.execute(
                "INSERT OR REPLACE INTO routing VALUES (1, ?, ?, ?, ?)",
                (
                    routing.epoch,
                    routing.read,
                    json.dumps(routing.write),
                    json.dumps(routing.model),
                ),
            )

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
