"""Databases in SQLite files that only we read: how they are opened, and changed."""

import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

BUSY_SECONDS: Final = 5.0
"""How long to wait for another process that has the same file, such as a second `ullage up`."""


def opened(
    path: pathlib.Path,
    schema: str,
    *pragmas: str,
    on_broken: Callable[[pathlib.Path, sqlite3.DatabaseError], None] | None = None,
) -> sqlite3.Connection:
    """Return a connection for one thread at a time; folder, file and tables are made if missing.

    With `on_broken` a file that is no database is moved out of the way to the path it is told, and
    an empty one begins. Without, and where the file is locked or cannot be opened, it raises
    sqlite3.DatabaseError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connected(path, schema, pragmas)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        if on_broken is None:
            raise
        broken = path.with_suffix(".broken")
        on_broken(broken, error)
        path.replace(broken)
        return _connected(path, schema, pragmas)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Keep all of a block's changes at its end, or none when it fails."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _connected(path: pathlib.Path, schema: str, pragmas: tuple[str, ...]) -> sqlite3.Connection:
    path.touch(mode=0o600)
    # The thread that closes it need not be the one that used it.
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", *pragmas):
            db.execute(f"PRAGMA {pragma}")
        db.executescript(schema)
    except BaseException:
        db.close()
        raise
    return db
