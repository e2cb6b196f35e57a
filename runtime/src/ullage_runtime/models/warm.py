"""The warm tier: what host memory keeps of models that have left, for their return.

Of a model whose engine maps its file that is a copy of the file in memory, which the kernel cannot
drop as it drops cached pages, and what its engine had computed of frequent prompts. Both are in the
host's ledger, and go before anything that answers requests: when a load needs the room, when the
host's memory is short, and when the model has not been asked for as long as it may.

Where models are loaded into that very memory a load takes its copy's bytes over, since the engine
maps them, and the copy ends with the engine. On another device the copy stays while there is room.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.governor.reservations import WarmBytes
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.artifacts import Artifacts
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.live import Live
from ullage_runtime.models.memory_file import MemoryFile, lies_in_memory

PREFIX_SHARE: Final = 4
"""Saved prefixes take one in so many of the bytes of a model's file, at most."""
PREFIX_LEAST: Final = 16 << 20
"""Bytes that they may take of any model."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Kept:
    """One file in memory, with its bytes in the ledger."""

    file: MemoryFile
    bytes: WarmBytes

    def close(self) -> None:
        self.file.close()
        self.bytes.release()


@dataclass(slots=True, eq=False)
class WarmCopy:
    """What is kept of one model; whoever takes it closes it."""

    artifacts: Artifacts
    on_change: Callable[[], None]
    expires: float | None = None
    """When it goes although nobody needs its room, on the monotonic clock."""
    has_weights: bool = False
    """Whether the model's file is in memory: as a copy, or because it lies there anyway."""
    weights: _Kept | None = None
    prefixes: _Kept | None = None
    is_due: bool = False
    """Whether the model has left and its file is to be copied."""
    copying: "asyncio.Task[None] | None" = None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def bytes(self) -> int:
        """What it has in the ledger."""
        return sum(kept.bytes.bytes for kept in (self.weights, self.prefixes) if kept is not None)

    @property
    def path(self) -> str:
        """Where the model's file is best read from."""
        return self.artifacts.model.path if self.weights is None else self.weights.file.path

    @property
    def prefixes_path(self) -> str:
        """Where the saved prefixes are; empty without any."""
        return "" if self.prefixes is None else self.prefixes.file.path

    def drop_prefixes(self) -> None:
        """Give the saved prefixes' memory back; idempotent."""
        kept, self.prefixes = self.prefixes, None
        if kept is not None:
            kept.close()

    def close(self) -> None:
        """Give everything back; what is being copied ends by itself soon. Idempotent."""
        self.stop.set()
        self.drop_prefixes()
        kept, self.weights, self.has_weights = self.weights, None, False
        if kept is not None:
            kept.close()


class WarmTier:
    """What is kept of every model of a pod, at most one copy of each."""

    def __init__(self, governor: Governor, clock: Clock) -> None:
        self._governor = governor
        self._clock = clock
        self._copies: dict[str, WarmCopy] = {}
        """By the model's name; those that left first come first."""
        self._copying: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def reclaimable(self) -> int:
        """Bytes of the memory that models are loaded into, for any load to have."""
        if not self._governor.loads_into_host:
            return 0
        return sum(copy.bytes for copy in self._copies.values())

    def has(self, model: str) -> bool:
        """Whether a model's file waits in memory."""
        copy = self._copies.get(model)
        return copy is not None and copy.has_weights

    def bytes_of(self, model: str) -> int:
        """Return the bytes of host memory that are kept of a model."""
        copy = self._copies.get(model)
        return 0 if copy is None else copy.bytes

    # A model leaves ------------------------------------------------------------------------------

    @asynccontextmanager
    async def leaving(
        self, model: str, live: Live, expires: float | None, on_change: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Save what only the engine has, and have the file copied once the body has unloaded it.

        `on_change` is called when the model is warm, and when it is not any more.
        """
        copy = self._copies.pop(model, None)
        if copy is not None and copy.artifacts.key != live.artifacts.key:
            copy.close()
            copy = None
        if self._closed or live.died or not live.loaded.maps_file or self._governor.host_is_short:
            if copy is not None:
                copy.close()
            yield
            return
        copy = copy or WarmCopy(live.artifacts, on_change)
        copy.on_change, copy.expires = on_change, expires
        self._copies[model] = copy
        saved = await self._saved_prefixes(model, live)
        if self._copies.get(model) is copy:
            copy.drop_prefixes()
            copy.prefixes = saved
        elif saved is not None:
            saved.close()
        yield
        copy.is_due = not copy.has_weights

    async def _saved_prefixes(self, model: str, live: Live) -> _Kept | None:
        most = max(PREFIX_LEAST, live.artifacts.model.size // PREFIX_SHARE)
        limit = min(most, self._governor.warm_room)
        try:
            if not (await live.engine.stats()).kv_cells_used:
                return None
            kept = self._kept(f"{model} (prefixes)", limit)
            if kept is None:
                return None
            count = 0
            try:
                count = await live.engine.save_prefixes(kept.file.path, limit)
            finally:
                if not count:
                    kept.close()
        except (EngineFailed, LoadError) as error:
            _log.warning("warm.prefixes_not_saved", model=model, why=error.message)
            return None
        if not count:
            return None
        kept.bytes.settle(count)
        return kept

    def _kept(self, owner: str, count: int) -> _Kept | None:
        """Return an empty file for so many bytes, or None when there is no room for them."""
        promised = self._governor.reserve_warm(owner, count)
        if promised is None:
            return None
        try:
            return _Kept(MemoryFile("ullage-warm"), promised)
        except OSError as error:
            promised.release()
            _log.warning("warm.no_files_in_memory", why=str(error))
            return None

    def tend(self, *, is_calm: bool) -> None:
        """Drop what must go, and copy a file if one is due.

        `is_calm` tells that nobody loads or waits for memory: a copy is made for nobody's harm.
        """
        now = self._clock.monotonic()
        for model, copy in tuple(self._copies.items()):
            is_over = copy.expires is not None and copy.expires <= now
            if is_over or self._governor.host_is_short:
                self.forget(model)
        if not is_calm or self._copying or self._closed:
            return
        due = next((item for item in self._copies.items() if item[1].is_due), None)
        if due is not None:
            model, copy = due
            copy.is_due = False
            copy.copying = task = asyncio.create_task(self._copy(model, copy))
            self._copying.add(task)
            task.add_done_callback(self._copying.discard)

    async def _copy(self, model: str, copy: WarmCopy) -> None:
        """Copy a model's file; nobody cancels it, but `stop` ends it soon."""
        source, kept = copy.artifacts.model.path, None
        done = False
        try:
            size = (await asyncio.to_thread(Path(source).stat)).st_size
            if await asyncio.to_thread(lies_in_memory, source):
                done = not copy.stop.is_set()
            elif not copy.stop.is_set():
                kept = self._kept(f"{model} (weights)", size)
                if kept is not None:
                    done = await asyncio.to_thread(kept.file.copy_from, source, copy.stop)
        except OSError as error:
            _log.warning("warm.not_copied", model=model, why=str(error))
        if not done or copy.stop.is_set():
            if kept is not None:
                kept.close()
            if not copy.bytes and self._copies.get(model) is copy:
                del self._copies[model]
            return
        if kept is not None:
            kept.bytes.settle(size)
        copy.weights, copy.has_weights = kept, True
        _log.info("model.warm", model=model, bytes=copy.bytes)
        copy.on_change()

    # A model comes back --------------------------------------------------------------------------

    async def prepare(self, model: str, key: str) -> str | None:
        """Let a load begin: nothing is copied any more of its model.

        Returns the ledger's owner of the bytes that the load takes over, if there are any.
        """
        copy = self._copies.get(model)
        if copy is None:
            return None
        await self._stop_copying(copy)
        if copy.artifacts.key != key or copy.weights is None:
            return None
        return copy.weights.bytes.owner if self._governor.loads_into_host else None

    def take(self, model: str, key: str) -> WarmCopy | None:
        """Return what is kept for a load whose memory has just been granted; it is the load's."""
        copy = self._copies.get(model)
        if copy is None or copy.artifacts.key != key:
            return None
        del self._copies[model]
        if copy.weights is not None and self._governor.loads_into_host:
            copy.weights.bytes.hand_over()
        return copy

    def loaded(self, model: str, key: str, copy: WarmCopy | None) -> None:
        """Note that a model has been loaded, from what had been taken, if anything had.

        What is kept of another revision of it goes.
        """
        other = self._copies.get(model)
        if other is not None and other.artifacts.key != key:
            self.forget(model)
        if copy is None:
            return
        if copy.weights is None or self._governor.loads_into_host:
            copy.close()  # an engine that maps it keeps its pages
            return
        copy.drop_prefixes()
        copy.expires = None
        self._copies[model] = copy

    # Others need the room ------------------------------------------------------------------------

    async def give(self, needed: int, besides: str) -> bool:
        """Give memory to a load, of what left first; False when there is nothing to give.

        `besides` is the load's own model, whose copy it takes over.
        """
        if not self._governor.loads_into_host:
            return False
        before = self._governor.free
        for model, copy in tuple(self._copies.items()):
            if self._governor.free - before >= needed:
                break
            if model == besides:
                continue
            if copy.is_due:
                copy.drop_prefixes()  # there may be room for the file once the load has its memory
            else:
                await self._stop_copying(copy)
                self.forget(model)
        return self._governor.free > before

    async def _stop_copying(self, copy: WarmCopy) -> None:
        copy.is_due = False
        task = copy.copying
        if task is not None and not task.done():
            copy.stop.set()
            await asyncio.wait({task})

    def forget(self, model: str) -> None:
        """Drop what is kept of a model."""
        copy = self._copies.pop(model, None)
        if copy is not None:
            was_warm = copy.has_weights
            copy.close()
            if was_warm:
                copy.on_change()

    async def close(self) -> None:
        """Drop everything and keep nothing any more; idempotent."""
        self._closed = True
        for model in tuple(self._copies):
            self.forget(model)
        if self._copying:
            await asyncio.wait(set(self._copying))
