"""The sessions of a pod: a SQLite file in which what is deleted is overwritten."""

import json
import pathlib
import secrets
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ullage_runtime.database import opened, transaction
from ullage_runtime.retrieval.stores.port import PointId

MAX_TURNS: Final = 1000
"""Turns of one session; the oldest leave first."""
MAX_SHOWN: Final = 10_000
"""Findings of a session that are known to have been shown."""
MAX_SESSIONS: Final = 1000
"""Sessions of one tenant; the one that was used least recently leaves first."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  collection TEXT NOT NULL,
  created REAL NOT NULL,
  ttl REAL NOT NULL,
  expires REAL NOT NULL,
  asked TEXT,
  candidates TEXT
);
CREATE INDEX IF NOT EXISTS sessions_by_expiry ON sessions (expires);
CREATE INDEX IF NOT EXISTS sessions_by_tenant ON sessions (tenant, expires);
CREATE TABLE IF NOT EXISTS turns (
  key INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
  role TEXT NOT NULL,
  text TEXT NOT NULL,
  created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_by_session ON turns (session, key);
CREATE TABLE IF NOT EXISTS shown (
  key INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
  point TEXT NOT NULL,
  UNIQUE (session, point)
);
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it stands."""

    key: int
    id: str
    collection: str
    created: float
    expires: float
    turns: int


class SessionsFile:
    """The file; to be used by one thread at a time."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._now = now
        self._db = opened(
            path, _SCHEMA, "synchronous = NORMAL", "secure_delete = ON", "foreign_keys = ON"
        )

    def create(self, tenant: str, collection: str, ttl: float) -> Session:
        """Begin a session, which ends by itself when it is not used for so many seconds."""
        name = f"sess_{secrets.token_hex(16)}"
        now = self._now()
        with transaction(self._db) as db:
            db.execute(
                "INSERT INTO sessions (id, tenant, collection, created, ttl, expires) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (name, tenant, collection, now, ttl, now + ttl),
            )
            db.execute(
                "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE tenant = ? "
                "ORDER BY expires DESC, key DESC LIMIT -1 OFFSET ?)",
                (tenant, MAX_SESSIONS),
            )
        found = self.get(tenant, name)
        if found is None:
            raise RuntimeError(f"{name} is gone as soon as it was made")
        return found

    def get(self, tenant: str, session_id: str) -> Session | None:
        """Return a tenant's session, which is used with that; None for one that has expired."""
        now = self._now()
        with transaction(self._db) as db:
            db.execute(
                "UPDATE sessions SET expires = ? + ttl WHERE id = ? AND tenant = ? AND expires > ?",
                (now, session_id, tenant, now),
            )
            row = db.execute(
                "SELECT key, id, collection, created, expires, "
                "(SELECT COUNT(*) FROM turns WHERE session = sessions.key) "
                "FROM sessions WHERE id = ? AND tenant = ? AND expires > ?",
                (session_id, tenant, now),
            ).fetchone()
        return None if row is None else Session(*row)

    def append(self, session: Session, turns: Sequence[Turn]) -> None:
        """Add turns; one that has been deleted meanwhile takes none."""
        now = self._now()
        with transaction(self._db) as db:
            db.executemany(
                "INSERT INTO turns (session, role, text, created) "
                "SELECT key, ?, ?, ? FROM sessions WHERE key = ? AND id = ?",
                ((each.role, each.text, now, session.key, session.id) for each in turns),
            )
            self._forget_oldest("turns", session, MAX_TURNS)

    def turns(self, session: Session, limit: int) -> list[Turn]:
        """Return the last turns, in their order."""
        rows = self._db.execute(
            "SELECT role, text FROM turns WHERE session = ? ORDER BY key DESC LIMIT ?",
            (session.key, limit),
        ).fetchall()
        return [Turn(*row) for row in reversed(rows)]

    def keep_candidates(self, session: Session, asked: str, hits: Sequence[dict[str, Any]]) -> None:
        """Keep the findings that following pages are cut from."""
        with transaction(self._db) as db:
            db.execute(
                "UPDATE sessions SET asked = ?, candidates = ? WHERE key = ? AND id = ?",
                (asked, json.dumps(hits), session.key, session.id),
            )

    def candidates(self, session: Session, asked: str) -> list[dict[str, Any]] | None:
        """Return the findings of the last search, if it was this one."""
        row = self._db.execute(
            "SELECT candidates FROM sessions WHERE key = ? AND asked = ?", (session.key, asked)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def note_shown(self, session: Session, points: Collection[PointId]) -> None:
        """Note that findings have been shown."""
        with transaction(self._db) as db:
            db.executemany(
                "INSERT OR IGNORE INTO shown (session, point) "
                "SELECT key, ? FROM sessions WHERE key = ? AND id = ?",
                ((str(point), session.key, session.id) for point in points),
            )
            self._forget_oldest("shown", session, MAX_SHOWN)

    def shown(self, session: Session) -> frozenset[str]:
        """Return the ids, as texts, of findings that have been shown."""
        rows = self._db.execute("SELECT point FROM shown WHERE session = ?", (session.key,))
        return frozenset(row[0] for row in rows)

    def delete(self, tenant: str, session_id: str) -> bool:
        """Forget a session and all that was said in it, on the disk too; False if there is none."""
        with transaction(self._db) as db:
            cursor = db.execute(
                "DELETE FROM sessions WHERE id = ? AND tenant = ?", (session_id, tenant)
            )
        self._compact()
        return cursor.rowcount > 0

    def forget(self, collection: str | None = None) -> int:
        """Forget sessions that have expired, and those of a collection; return how many."""
        with transaction(self._db) as db:
            count = db.execute(
                "DELETE FROM sessions WHERE expires <= ? OR collection = ?",
                (self._now(), collection),
            ).rowcount
        if count:
            self._compact()
        return count

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _forget_oldest(self, table: str, session: Session, most: int) -> None:
        self._db.execute(
            f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE session = ? "  # noqa: S608 - our own names
            "ORDER BY key DESC LIMIT -1 OFFSET ?)",
            (session.key, most),
        )

    def _compact(self) -> None:
        """Have the file itself be all there is: what was written before lies in SQLite's log."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
