"""The stored responses, off the event loop: SQLite waits for disks and locks, requests must not."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from ullage_runtime.http.responses.store import Item, ResponseStore, Size, Stored

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")


class KeptResponses:
    """A store and the one thread that works on it; `note` is told its size when it changes."""

    def __init__(self, store: ResponseStore, note: Callable[[Size], None]) -> None:
        self._store = store
        self._note = note
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses")

    async def save(self, tenant: str, stored: Stored) -> bool:
        """Keep a response; False when it cannot be kept, which the log explains."""
        try:
            return await self._changed(lambda: self._store.save(tenant, stored))
        except (sqlite3.Error, OSError) as error:
            # The answer is there all the same, and says itself that it is not stored.
            log.error("a response cannot be kept", tenant=tenant, error=str(error))  # noqa: TRY400
            return False

    async def get(self, tenant: str, response_id: str) -> Stored | None:
        """Return a tenant's response."""
        return await self._run(lambda: self._store.get(tenant, response_id))

    async def item(self, tenant: str, item_id: str) -> Item | None:
        """Return a tenant's item."""
        return await self._run(lambda: self._store.item(tenant, item_id))

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Forget a tenant's response; False if there is none."""
        return await self._changed(lambda: self._store.delete(tenant, response_id))

    async def close(self) -> None:
        """Let what is under way come to its end, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()

    async def _changed(self, work: Callable[[], T]) -> T:
        done, size = await self._run(lambda: (work(), self._store.size()))
        self._note(size)
        return done

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
