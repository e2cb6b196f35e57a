"""The originals of a collection's documents, and how far each has come: a SQLite file.

What is not finished when the process ends is gone on with by the next one, from this file.
"""

import hashlib
import json
import pathlib
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from ullage_runtime.database import opened, transaction
from ullage_runtime.retrieval.room import ROOM_TO_ACCEPT, check_room

KEPT_OPERATIONS: Final = 1000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (
  id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  text TEXT NOT NULL,
  metadata TEXT NOT NULL,
  operation TEXT NOT NULL,
  state TEXT NOT NULL,
  chunker TEXT NOT NULL DEFAULT '',
  chunks INTEGER NOT NULL DEFAULT 0,
  error TEXT
);
CREATE TABLE IF NOT EXISTS originals (
  id TEXT PRIMARY KEY,
  media_type TEXT NOT NULL,
  body BLOB NOT NULL
);
-- What stands behind a long text in its row is slow to get at, so these have what is asked of many.
CREATE INDEX IF NOT EXISTS documents_by_state ON documents (state);
CREATE INDEX IF NOT EXISTS documents_by_progress ON documents (operation, state, chunks);
DROP INDEX IF EXISTS documents_by_operation;
CREATE TABLE IF NOT EXISTS operations (
  key INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  created REAL NOT NULL,
  finished REAL,
  total INTEGER NOT NULL,
  unchanged INTEGER NOT NULL,
  superseded INTEGER NOT NULL DEFAULT 0
);
"""
_SELECT: Final = (
    "SELECT documents.id, text, metadata, state, chunker, chunks, error, media_type "
    "FROM documents LEFT JOIN originals ON originals.id = documents.id"
)


class State(StrEnum):
    """How far a document has come."""

    PENDING = "Pending"
    DONE = "Done"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was given."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What tells its content from another one's."""
        text = json.dumps([self.text, self.metadata], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Original:
    """The file that a document's text was read from."""

    media_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as it is kept."""

    document: Document
    state: State
    chunker: str
    """Of the chunks that are in the index now."""
    chunks: int
    error: str | None
    original: str | None = None
    """Media type of the file that its text was read from, if it was not text itself."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that brought documents, and how far they have come."""

    id: str
    created: float
    finished: float | None
    total: int
    unchanged: int
    """Documents that were there already, just so."""
    superseded: int
    """Documents that a later call has brought again, or deleted."""
    done: int
    failed: int
    chunks: int
    errors: dict[str, str]
    """Why documents failed, by their ids; the first hundred."""

    @property
    def pending(self) -> int:
        """Documents that are still to be done."""
        return self.total - self.unchanged - self.superseded - self.done - self.failed


class DocumentsFile:
    """The file; to be used by one thread at a time."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._now = now
        self._folder = path.parent
        self._db = opened(path, _SCHEMA, "synchronous = FULL", "secure_delete = ON")

    def accept(
        self,
        documents: Sequence[Document],
        chunker: str,
        originals: Mapping[str, Original] = MappingProxyType({}),
    ) -> str:
        """Keep documents that are to be indexed and return the operation's id.

        One that is indexed already, with this very content by this chunker, is left as it is.
        `originals` are the files that some were read from, by their ids. Raises OSError where there
        is no room.
        """
        check_room(self._folder, ROOM_TO_ACCEPT)
        operation = f"op-{uuid.uuid4().hex}"
        with transaction(self._db) as db:
            unchanged = sum(not self._accept(d, operation, chunker) for d in documents)
            db.executemany(
                "INSERT OR REPLACE INTO originals VALUES (?, ?, ?)",
                ((key, each.media_type, each.body) for key, each in originals.items()),
            )
            finished = self._now() if unchanged == len(documents) else None
            db.execute(
                "INSERT INTO operations (id, created, finished, total, unchanged) "
                "VALUES (?, ?, ?, ?, ?)",
                (operation, self._now(), finished, len(documents), unchanged),
            )
            db.execute(
                "DELETE FROM operations WHERE finished IS NOT NULL AND key <= "
                "(SELECT MAX(key) FROM operations) - ?",
                (KEPT_OPERATIONS,),
            )
        return operation

    def _accept(self, document: Document, operation: str, chunker: str) -> bool:
        kept = self.get(document.id)
        digest = document.digest
        if kept is not None:
            is_same = kept.document.digest == digest and kept.chunker == chunker
            if is_same and kept.state is State.DONE:
                return False
            self._supersede(document.id)
            self._db.execute("DELETE FROM originals WHERE id = ?", (document.id,))
        self._db.execute(
            "INSERT INTO documents (id, digest, text, metadata, operation, state) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, "
            "text = excluded.text, metadata = excluded.metadata, operation = excluded.operation, "
            "state = excluded.state, error = NULL",
            (
                document.id,
                digest,
                document.text,
                json.dumps(document.metadata, ensure_ascii=False),
                operation,
                State.PENDING,
            ),
        )
        return True

    def _supersede(self, document_id: str) -> None:
        """Let a document no longer count for the operation that brought it, while that is known."""
        self._db.execute(
            "UPDATE operations SET superseded = superseded + 1 WHERE id = "
            "(SELECT operation FROM documents WHERE id = ?)",
            (document_id,),
        )

    def get(self, document_id: str) -> Kept | None:
        """Return a document."""
        row = self._db.execute(f"{_SELECT} WHERE documents.id = ?", (document_id,)).fetchone()
        return None if row is None else _kept(row)

    def original(self, document_id: str) -> Original | None:
        """Return the file that a document's text was read from, if it was not text itself."""
        row = self._db.execute(
            "SELECT media_type, body FROM originals WHERE id = ?", (document_id,)
        ).fetchone()
        return None if row is None else Original(*row)

    def pending(self, limit: int) -> list[str]:
        """Return the ids of documents that are still to be done, in their order."""
        rows = self._db.execute(
            "SELECT id FROM documents WHERE state = ? ORDER BY rowid LIMIT ?",
            (State.PENDING, limit),
        )
        return [document_id for (document_id,) in rows]

    def note_begun(self, document: Document, chunker: str, chunks: int) -> None:
        """Note how many chunks may be in the index from now on, whatever becomes of them.

        What takes the document's place amid its work, or after a crash, has them removed.
        """
        with transaction(self._db) as db:
            db.execute(
                "UPDATE documents SET chunker = :chunker, chunks = MAX(chunks, :chunks) "
                "WHERE id = :id AND (chunker = :chunker OR chunks = 0)",
                {"chunker": chunker, "chunks": chunks, "id": document.id},
            )

    def note_done(self, document: Document, chunker: str, chunks: int) -> None:
        """Note that a document is indexed; one brought anew meanwhile is still to be done."""
        with transaction(self._db) as db:
            # Brought anew or not, these chunks are what there is of it.
            db.execute(
                "UPDATE documents SET chunker = ?, chunks = ? WHERE id = ?",
                (chunker, chunks, document.id),
            )
            self._note(db, document, State.DONE, None)

    def note_failed(self, document: Document, reason: str) -> None:
        """Note that a document cannot be indexed, likewise."""
        with transaction(self._db) as db:
            self._note(db, document, State.FAILED, reason)

    def _note(
        self, db: sqlite3.Connection, document: Document, state: State, error: str | None
    ) -> None:
        db.execute(
            "UPDATE documents SET state = ?, error = ? WHERE id = ? AND digest = ?",
            (state, error, document.id, document.digest),
        )
        db.execute(
            "UPDATE operations SET finished = ? WHERE finished IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM documents WHERE operation = operations.id AND state = ?)",
            (self._now(), State.PENDING),
        )

    def delete(self, document_id: str) -> None:
        """Forget a document."""
        with transaction(self._db) as db:
            self._supersede(document_id)
            db.execute("DELETE FROM documents WHERE id = ?", (document_id,))
            db.execute("DELETE FROM originals WHERE id = ?", (document_id,))

    def cut_otherwise(self, chunker: str) -> int:
        """Return how many documents are in the index by another chunker, or wait to be."""
        row = self._db.execute(
            "SELECT COUNT(*) FROM documents WHERE chunker != ? AND state != ? OR state = ?",
            (chunker, State.FAILED, State.PENDING),
        ).fetchone()
        return int(row[0])

    def cut_again(self, chunker: str) -> int:
        """Have what is indexed by another chunker be indexed again; return how much that is.

        Until then it is found as it was.
        """
        with transaction(self._db) as db:
            return db.execute(
                "UPDATE documents SET state = ? WHERE chunker != ? AND state = ?",
                (State.PENDING, chunker, State.DONE),
            ).rowcount

    def count(self) -> int:
        """Return how many documents there are."""
        return int(self._db.execute("SELECT COUNT(*) FROM documents").fetchone()[0])

    def operation(self, operation_id: str) -> Operation | None:
        """Return an operation as it stands."""
        row = self._db.execute(
            "SELECT created, finished, total, unchanged, superseded FROM operations WHERE id = ?",
            (operation_id,),
        ).fetchone()
        if row is None:
            return None
        counts = dict(
            self._db.execute(
                "SELECT state, COUNT(*) FROM documents WHERE operation = ? GROUP BY state",
                (operation_id,),
            ).fetchall()
        )
        (chunks,) = self._db.execute(
            "SELECT COALESCE(SUM(chunks), 0) FROM documents WHERE operation = ? AND state = ?",
            (operation_id, State.DONE),
        ).fetchone()
        errors = self._db.execute(
            "SELECT id, error FROM documents WHERE operation = ? AND state = ? LIMIT 100",
            (operation_id, State.FAILED),
        ).fetchall()
        created, finished, total, unchanged, superseded = row
        return Operation(
            id=operation_id,
            created=created,
            finished=finished,
            total=total,
            unchanged=unchanged,
            superseded=superseded,
            done=counts.get(State.DONE, 0),
            failed=counts.get(State.FAILED, 0),
            chunks=chunks,
            errors=dict(errors),
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _kept(row: tuple[Any, ...]) -> Kept:
    document_id, text, metadata, state, chunker, chunks, error, original = row
    document = Document(document_id, text, json.loads(metadata))
    return Kept(document, State(state), chunker, chunks, error, original)
