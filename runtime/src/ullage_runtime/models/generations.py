"""The generations of one model: which answers, which drain, and what becomes of a dead one."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog

from ullage_runtime.core.generation import GenerationPhase
from ullage_runtime.models.admission import Admission
from ullage_runtime.models.live import Live

Around = Callable[[Live], AbstractAsyncContextManager[None]]
"""What is done before and after a generation is unloaded."""


def nothing_around(_live: Live) -> AbstractAsyncContextManager[None]:
    """Do nothing before and after."""
    return nullcontext()


_log = structlog.get_logger(__name__)


class Generations:
    """Owns a model's live generations from the switch to the last byte given back."""

    def __init__(
        self,
        model: str,
        admission: Admission,
        *,
        on_death: Callable[[Live, str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._model = model
        self._admission = admission
        self._on_death = on_death
        self._on_change = on_change
        self._active: Live | None = None
        self._standby: Live | None = None
        self._candidate: Live | None = None
        self._leaving: list[Live] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> Live | None:
        """What answers now."""
        return self._active

    @property
    def standby(self) -> Live | None:
        """What answered before and would again at once."""
        return self._standby

    @property
    def leaving(self) -> int:
        """How many drain or unload."""
        return len(self._leaving)

    def adopt(self, live: Live) -> None:
        """Take a loaded generation that is to answer soon: its end is noticed from now on."""
        self._candidate = live
        _ = self._spawn(self._watch(live))

    def compare(self, percent: int) -> None:
        """Give the adopted generation its share of the requests."""
        self._admission.share(self._candidate, percent)

    def switch(self, *, keep: bool = False, drain_seconds: float | None = None) -> bool:
        """Let the adopted generation answer from now on; the one before drains and leaves.

        With `keep` it stays until `release_standby` or `flip_back`. False when the adopted one has
        died meanwhile. The caller says so in the report, together with what else has changed.
        """
        live, self._candidate = self._candidate, None
        if live is None:
            return False
        old, self._active = self._active, live
        self._admission.share(None, 0)
        self._admission.route_to(live)
        if old is not None and keep:
            old.generation.drain()
            old.note()
            self._standby = old
        elif old is not None:
            _ = self._begin_leave(old, drain_seconds)
        return True

    def give_up(self) -> None:
        """Have the adopted generation leave, as it is not to answer after all."""
        live, self._candidate = self._candidate, None
        self._admission.share(None, 0)
        if live is not None and live.generation.phase is not GenerationPhase.GONE:
            _ = self._begin_leave(live)

    def flip_back(self) -> bool:
        """Have what stands by answer again, and what answers leave; False without the former."""
        old, back = self._active, self._standby
        self._standby = None
        if back is None:
            return False
        back.resume()
        self._active = back
        self._admission.route_to(back)
        if old is not None:
            _ = self._begin_leave(old)
        self._on_change()
        return True

    def release_standby(self, drain_seconds: float | None = None) -> "asyncio.Task[None] | None":
        """Have what stands by leave."""
        live, self._standby = self._standby, None
        return None if live is None else self._begin_leave(live, drain_seconds)

    def begin_retire(
        self, drain_seconds: float | None = None, *, around: Around | None = None
    ) -> "asyncio.Task[None] | None":
        """Let no request bind the active generation; it drains and unloads by itself.

        `around` is entered once nobody holds it, and left once it is unloaded.
        """
        old, self._active = self._active, None
        if old is None:
            return None
        self._admission.route_to(None)
        leaving = self._begin_leave(old, drain_seconds, around)
        self._on_change()
        return leaving

    def hurry(self) -> None:
        """Stop waiting for leases: what drains is unloaded now, and its requests fail."""
        for live in self._leaving:
            live.idle.set()

    async def wait_gone(self) -> None:
        """Wait until every generation has been given back."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _begin_leave(
        self, live: Live, seconds: float | None = None, around: Around | None = None
    ) -> "asyncio.Task[None]":
        live.generation.drain()
        live.note()
        self._leaving.append(live)
        return self._spawn(self._leave(live, seconds, around or nothing_around))

    async def _leave(self, live: Live, seconds: float | None, around: Around) -> None:
        """Unload a generation once nobody holds it, at the latest after some seconds."""
        try:
            try:
                async with asyncio.timeout(seconds):
                    await live.idle.wait()
            except TimeoutError:
                cut = live.generation.leases
                _log.warning("generation.cut_off", generation=live.generation.id, requests=cut)
            async with around(live):
                await live.unload()
        finally:
            self._leaving.remove(live)
            self._on_change()
        _log.info("generation.unloaded", model=self._model, generation=live.generation.id)

    async def _watch(self, live: Live) -> None:
        """Wait for the engine's end; if nobody asked for it, clear up and say so."""
        how = await live.engine.ended()
        if live.generation.phase is GenerationPhase.GONE:
            return
        live.died = how
        was_alone = live is self._active and not self.flip_back()
        if was_alone:
            self._active = None
            self._admission.route_to(None)
        if live is self._candidate:
            self.give_up()
        if live is self._standby:
            self._standby = None
        await live.unload()
        if was_alone:
            self._on_death(live, how)
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
