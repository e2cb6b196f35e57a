"""The journal of swaps: each step is on the disk before it is taken, so that a crash is no loss.

For each model it knows what was last committed, which is what a restart begins with when the
process ended in the midst of a swap; why the target is not to be tried again, if that is so; and
the latest steps, for whoever wants to know how it came.
"""

import asyncio
import collections
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.base import KubeModel
from ullage_api.wire.pod_report import ReportedRevision, ReportedSwap
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.swap import Mark, SwapEnd
from ullage_runtime.database import opened, transaction

KEPT_STEPS: Final = 1000
"""How many of the latest steps are kept, of all models together."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS steps (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  model TEXT NOT NULL,
  mark TEXT NOT NULL,
  detail TEXT NOT NULL,
  time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS models (
  model TEXT PRIMARY KEY,
  committed_want TEXT,
  committed TEXT,
  attempted TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
  model TEXT PRIMARY KEY,
  failure TEXT NOT NULL
) WITHOUT ROWID;
"""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Committed:
    """What last answered for good."""

    want: DesiredRevision
    """As the spec asked for it."""
    pinned: DesiredRevision
    """With the digests that its files turned out to have."""


class Failure(KubeModel):
    """Why a target is not to be tried again, with what is shown of it."""

    asks: str
    """What was asked for, as `Wish.asks` has it: it counts for nothing else."""
    reason: Reason
    message: str
    target: ReportedRevision | None = None
    """As far as it was known."""
    swap: ReportedSwap | None = None
    """The swap that came to nothing, if there was something to take the place of."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a journal knows of a model."""

    committed: Committed | None = None
    attempted: DesiredRevision | None = None
    """What was to take over and has not been committed since."""
    failure: Failure | None = None
    """Why the latest attempt was the last one."""


class Journal(Protocol):
    """Where the steps of swaps are kept; models are named by the uid of their resource."""

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        """Keep a step towards a revision; on return it outlives the process and the machine.

        A new attempt ends what was kept of an earlier one's failure.
        """
        ...

    async def commit(self, model: str, committed: Committed) -> None:
        """Keep what answers for good from now on; likewise."""
        ...

    async def fail(self, model: str, failure: Failure) -> None:
        """Keep why the latest attempt was the last one; likewise."""
        ...

    async def recall(self, model: str) -> Recalled:
        """Return what is known of a model."""
        ...

    async def forget(self, model: str) -> None:
        """Forget a model."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


class MemoryJournal:
    """A journal that lasts as long as the process, where nobody gave a folder."""

    def __init__(self) -> None:
        self._known: dict[str, Recalled] = {}
        self.steps: collections.deque[tuple[str, Mark, str]] = collections.deque(maxlen=KEPT_STEPS)
        """The latest steps: model, mark and detail."""

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        """Keep a step."""
        self.steps.append((model, mark, detail))
        if not isinstance(mark, SwapEnd):
            known = self._known.get(model, Recalled())
            self._known[model] = Recalled(known.committed, want)

    async def commit(self, model: str, committed: Committed) -> None:
        """Keep what answers for good."""
        self.steps.append((model, SwapEnd.COMMITTED, ""))
        self._known[model] = Recalled(committed)

    async def fail(self, model: str, failure: Failure) -> None:
        """Keep why the latest attempt was the last one."""
        self._known[model] = replace(self._known.get(model, Recalled()), failure=failure)

    async def recall(self, model: str) -> Recalled:
        """Return what is known of a model."""
        return self._known.get(model, Recalled())

    async def forget(self, model: str) -> None:
        """Forget a model."""
        self._known.pop(model, None)

    async def close(self) -> None:
        """There is nothing to close."""


class FileJournal:
    """A journal in a SQLite file, and the one thread that works on it."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        """Keep a step; raises sqlite3.Error or OSError."""
        attempted = None if isinstance(mark, SwapEnd) else want.model_dump_json(by_alias=True)
        await self._run(lambda: self._note(model, mark, attempted, detail))

    async def commit(self, model: str, committed: Committed) -> None:
        """Keep what answers for good; raises sqlite3.Error or OSError."""
        texts = (
            committed.want.model_dump_json(by_alias=True),
            committed.pinned.model_dump_json(by_alias=True),
        )
        await self._run(lambda: self._commit(model, *texts))

    async def fail(self, model: str, failure: Failure) -> None:
        """Keep why the latest attempt was the last one; raises sqlite3.Error or OSError."""
        text = failure.model_dump_json(by_alias=True)
        await self._run(lambda: self._fail(model, text))

    async def recall(self, model: str) -> Recalled:
        """Return what is known of a model; raises sqlite3.Error, OSError or ValueError."""
        *revisions, failed = await self._run(lambda: self._recall(model))
        want, pinned, attempted = (
            None if text is None else DesiredRevision.model_validate_json(text)
            for text in revisions
        )
        committed = None if want is None or pinned is None else Committed(want, pinned)
        failure = None if failed is None else Failure.model_validate_json(failed)
        return Recalled(committed, attempted, failure)

    async def forget(self, model: str) -> None:
        """Forget a model; raises sqlite3.Error or OSError."""
        await self._run(lambda: self._forget(model))

    async def close(self) -> None:
        """Let what is under way come to its end, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._db is not None:
            self._db.close()
            self._db = None

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # On the thread -------------------------------------------------------------------------------

    def _note(self, model: str, mark: Mark, attempted: str | None, detail: str) -> None:
        with self._transaction() as db:
            self._insert(db, model, mark, detail)
            if attempted is not None:
                db.execute(
                    "INSERT INTO models (model, attempted) VALUES (?, ?) "
                    "ON CONFLICT (model) DO UPDATE SET attempted = excluded.attempted",
                    (model, attempted),
                )
                db.execute("DELETE FROM failures WHERE model = ?", (model,))

    def _commit(self, model: str, want: str, pinned: str) -> None:
        with self._transaction() as db:
            self._insert(db, model, SwapEnd.COMMITTED, "")
            db.execute(
                "INSERT INTO models (model, committed_want, committed) VALUES (?, ?, ?) "
                "ON CONFLICT (model) DO UPDATE SET committed_want = excluded.committed_want, "
                "committed = excluded.committed, attempted = NULL",
                (model, want, pinned),
            )
            db.execute("DELETE FROM failures WHERE model = ?", (model,))

    def _fail(self, model: str, failure: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?)", (model, failure))

    def _recall(self, model: str) -> tuple[str | None, str | None, str | None, str | None]:
        with self._transaction() as db:
            known = db.execute(
                "SELECT committed_want, committed, attempted FROM models WHERE model = ?", (model,)
            ).fetchone()
            failed = db.execute("SELECT failure FROM failures WHERE model = ?", (model,)).fetchone()
        return *(known or (None, None, None)), *(failed or (None,))

    def _forget(self, model: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM models WHERE model = ?", (model,))
            db.execute("DELETE FROM failures WHERE model = ?", (model,))
            db.execute("DELETE FROM steps WHERE model = ?", (model,))

    def _insert(self, db: sqlite3.Connection, model: str, mark: Mark, detail: str) -> None:
        number = db.execute(
            "INSERT INTO steps (model, mark, detail, time) VALUES (?, ?, ?, ?)",
            (model, mark.value, detail, self._now()),
        ).lastrowid
        db.execute("DELETE FROM steps WHERE number <= ?", ((number or 0) - KEPT_STEPS,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            # A step counts only once it would survive the machine's power.
            self._db = opened(self._path, _SCHEMA, "synchronous = FULL", on_broken=_tell)
        with transaction(self._db) as db:
            yield db


def _tell(broken: pathlib.Path, error: sqlite3.DatabaseError) -> None:
    # Without it a restart begins with what the spec asks for, as a new pod does.
    _log.error("the journal cannot be read", moved_to=str(broken), error=str(error))
