"""The spare engine: a process that is up before a model needs it.

To start one takes longer than to map weights that are in memory already. So one waits for the next
load, whichever model's that is: an engine learns what it is to be with its load. The ledger has it
like everything else; a load takes its bytes over, and models that need them come first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.engines.base import Engine
from ullage_runtime.engines.factory import EngineFactory
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.clock import Clock

SETTLE_SECONDS: Final = 2.0
"""How long after a load the next one is started: the first requests come first."""
EXPECTED_BYTES: Final = 64 << 20
"""What it is taken to need, until one has been measured."""
OWNER: Final = "spare"
"""Its name in the ledger; a model's begins with the model's."""

KindOf = Callable[[str], str]
"""Takes the path of a model file; returns which kind of engine it is for, or raises LoadError."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ready:
    """An engine that waits."""

    kind: str
    engine: Engine
    ended: "asyncio.Task[str]"


class SpareEngine:
    """At most one engine, ready for the next load of its kind.

    Without `kind_of` there is never one.
    """

    def __init__(
        self, engines: EngineFactory, kind_of: KindOf | None, governor: Governor, clock: Clock
    ) -> None:
        self._engines = engines
        self._kind_of = kind_of
        self._governor = governor
        self._clock = clock
        self._lock = asyncio.Lock()
        self._ready: _Ready | None = None
        self._reservation: Reservation | None = None
        self._path: str | None = None
        """A file of the kind that the next one is to be for."""
        self._since = 0.0
        """When an engine was last asked for."""
        self._expected = EXPECTED_BYTES

    @property
    def bytes(self) -> int:
        """What it has in the ledger; whoever loads may count that as free."""
        return 0 if self._reservation is None else self._reservation.bytes

    async def take(self, path: str) -> Engine | None:
        """Return the spare engine, for loading a file; None when there is none for it.

        Its bytes are the caller's to reserve from now on. Raises LoadError for a file that no
        engine is for.
        """
        if self._kind_of is None:
            return None
        kind = self._kind_of(path)
        async with self._lock:  # one that is being started is as good as a new one
            self._path, self._since = path, self._clock.monotonic()
            ready = self._ready
            if ready is None:
                return None
            if ready.kind != kind or ready.ended.done():
                await self._end(ready)
                return None
            ready.ended.cancel()
            self._forget()
            return ready.engine

    async def tend(self, *, is_wanted: bool, is_calm: bool) -> None:
        """Start one if it is time and there is room, or end the one there is for want of room.

        `is_wanted` tells that there are models, `is_calm` that none loads or waits for memory.
        """
        async with self._lock:
            if self._ready is not None:
                is_short = self._governor.free < 0 or self._governor.level is MemoryLevel.CRITICAL
                if self._ready.ended.done():
                    self._path = None
                if is_short or not is_wanted or self._ready.ended.done():
                    await self._end(self._ready)
                return
            if (
                is_wanted
                and is_calm
                and not self._governor.is_short
                and self._governor.free >= self._expected
                and self._clock.monotonic() - self._since >= SETTLE_SECONDS
            ):
                await self._start()

    async def close(self) -> None:
        """End the one there is, and start none any more; idempotent."""
        async with self._lock:
            self._kind_of = None
            if self._ready is not None:
                await self._end(self._ready)

    async def _start(self) -> None:
        # One that fails or dies is not tried again before somebody has loaded a model.
        path, self._path = self._path, None
        if path is None or self._kind_of is None:
            return
        self._reservation = self._governor.reserve(OWNER, Footprint(overhead=self._expected))
        engine: Engine | None = None
        try:
            kind = self._kind_of(path)
            engine = await self._engines(path)
            self._expected = await self._reservation.measure(engine)
        except BaseException as error:
            if engine is not None:
                await engine.unload()
            self._forget()
            if not isinstance(error, LoadError | EngineFailed):
                raise
            _log.warning("spare.not_started", why=error.message)
            return
        self._path = path
        ended = asyncio.create_task(engine.ended(), name=f"spare-{engine.pid}")
        self._ready = _Ready(kind, engine, ended)

    async def _end(self, ready: _Ready) -> None:
        ready.ended.cancel()
        if self._reservation is not None:
            self._reservation.releasing()
        try:
            await ready.engine.unload()
        finally:
            self._forget()

    def _forget(self) -> None:
        """Give its bytes back."""
        reservation, self._reservation, self._ready = self._reservation, None, None
        if reservation is not None:
            reservation.release()
