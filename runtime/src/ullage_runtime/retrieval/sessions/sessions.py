"""Searches that build on what was asked before, and what a session remembers."""

import asyncio
import hashlib
import pathlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from ullage_runtime.core.errors import SessionNotFound
from ullage_runtime.core.pooled import Role
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.searcher import Searcher
from ullage_runtime.retrieval.searching import Findings, Hit, Part, Search
from ullage_runtime.retrieval.sessions.file import Session, SessionsFile, Turn

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

HISTORY: Final = 3
"""Earlier questions that a search builds on."""
CANDIDATES: Final = 100
"""Findings of a search that following pages are cut from."""
REMEMBERED: Final = 256
"""Latest turns that are looked through for what is like a question."""
SWEEP_SECONDS: Final = 60.0
USER: Final = "user"
MAX_TEXT: Final = 1 << 16
"""Characters of a turn."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """A turn, and how much it is like what was asked."""

    turn: Turn
    score: float


class Sessions:
    """All sessions of a pod. The file is opened with the first one."""

    def __init__(self, path: pathlib.Path, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._file: SessionsFile | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to forget what expires."""
        self._sweeper = asyncio.create_task(self._sweep())

    async def create(self, tenant: str, collection: str, ttl: float) -> Session:
        """Begin a session."""
        with told(collection):
            return await self._run(lambda file: file.create(tenant, collection, ttl))

    async def get(self, tenant: str, session_id: str) -> Session:
        """Return a tenant's session; raises SessionNotFound."""
        found = await self._run(lambda file: file.get(tenant, session_id))
        if found is None:
            raise SessionNotFound(
                f"there is no session {session_id[:80]!r}, or it has expired", param="session_id"
            )
        return found

    async def append(self, session: Session, turns: Sequence[Turn]) -> None:
        """Remember turns; they are on the disk when this returns."""
        with told(session.collection):
            await self._run(lambda file: file.append(session, turns))

    async def turns(self, session: Session, limit: int) -> list[Turn]:
        """Return the last turns, in their order."""
        return await self._run(lambda file: file.turns(session, limit))

    async def delete(self, tenant: str, session_id: str) -> None:
        """Forget a session and all that was said in it; raises SessionNotFound."""
        if not await self._run(lambda file: file.delete(tenant, session_id)):
            raise SessionNotFound(f"there is no session {session_id[:80]!r}", param="session_id")

    async def history(self, session: Session) -> tuple[str, ...]:
        """Return the latest questions, the last one first."""
        turns = await self.turns(session, HISTORY * 4)
        asked = [turn.text for turn in reversed(turns) if turn.role == USER]
        return tuple(asked[:HISTORY])

    async def search(
        self, session: Session, searcher: Searcher, search: Search, *, tenant: str, demote: bool
    ) -> Findings:
        """Search with what was asked before; following pages are cut from the same findings.

        With `demote` what has been shown before comes after what has not.
        """
        asked = _digest(search)
        kept = None
        if search.offset:
            kept = await self._run(lambda file: file.candidates(session, asked))
        if kept is None:
            wide = replace(
                search,
                limit=max(CANDIDATES, search.offset + search.limit),
                offset=0,
                history=await self.history(session),
                lasting=False,
            )
            findings = await searcher.search(wide, tenant=tenant)
            if demote:
                findings = replace(findings, hits=await self._demoted(session, findings.hits))
            plain = [asdict(hit) for hit in findings.hits]
            with told(session.collection):
                await self._run(lambda file: file.keep_candidates(session, asked, plain))
        else:
            findings = Findings(tuple(map(_hit, kept)), search.mode)
        page = findings.hits[search.offset : search.offset + search.limit]
        with told(session.collection):
            shown = [hit.id for hit in page]
            await self._run(lambda file: file.note_shown(session, shown))
        return replace(findings, hits=page)

    async def remembered(
        self, session: Session, collection: Collection, query: str, limit: int, *, tenant: str
    ) -> list[Remembered]:
        """Return the turns that are most like a question, by the collection's model."""
        turns = await self.turns(session, REMEMBERED)
        if not turns:
            return []
        embed = partial(
            collection.embed, tenant=tenant, urgent=True, view=collection.view, lasting=False
        )
        (wanted,) = (await embed([query], Role.QUERY)).texts
        found = (await embed([turn.text for turn in turns], Role.DOCUMENT)).texts
        scored = [
            Remembered(turn, sum(a * b for a, b in zip(wanted.dense, each.dense, strict=True)))
            for turn, each in zip(turns, found, strict=True)
        ]
        return sorted(scored, key=lambda each: -each.score)[:limit]

    async def close(self) -> None:
        """Let what is under way come to its end, and close the file."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()

    async def forget(self, collection: str | None = None) -> int:
        """Forget what has expired, or a collection's sessions; return how many that was."""
        if self._file is None and not await asyncio.to_thread(self._path.exists):
            return 0
        return await self._run(lambda file: file.forget(collection))

    async def _demoted(self, session: Session, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        shown = await self._run(lambda file: file.shown(session))
        return tuple(sorted(hits, key=lambda hit: str(hit.id) in shown))

    async def _sweep(self) -> None:
        """Forget what has expired, again and again; runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.forget()
            except (sqlite3.Error, OSError) as error:
                log.error("sessions cannot be forgotten", error=str(error))  # noqa: TRY400

    async def _run(self, work: Callable[[SessionsFile], T]) -> T:
        def worked() -> T:
            if self._file is None:
                self._file = SessionsFile(self._path, self._now)
            return work(self._file)

        return await asyncio.get_running_loop().run_in_executor(self._thread, worked)


def _digest(search: Search) -> str:
    """Return what tells a search from others, but not from its own pages."""
    plain = repr(asdict(replace(search, limit=1, offset=0, ranked=min(search.ranked, 1))))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _hit(plain: dict[str, Any]) -> Hit:
    parts = plain["parts"]
    return Hit(
        plain["id"],
        plain["score"],
        plain["payload"],
        None if parts is None else {name: Part(**part) for name, part in parts.items()},
    )
