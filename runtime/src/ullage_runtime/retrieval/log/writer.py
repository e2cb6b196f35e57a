"""What brings one physical collection the mutations that it has not."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from ullage_runtime.core.backoff import exponential
from ullage_runtime.retrieval.log.file import FailedWrite, LogFile
from ullage_runtime.retrieval.log.records import Record
from ullage_runtime.retrieval.making import Making, Remaker
from ullage_runtime.retrieval.stores.port import Point, Store, StoreRefused, StoreUnavailable

log = structlog.stdlib.get_logger(__name__)

AT_ONCE: Final = 4
"""Mutations brought to one index at the same time: their order does not matter."""
FIRST_RETRY_SECONDS: Final = 0.05
RETRY_LIMIT_SECONDS: Final = 5.0

OnFile = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Does work with the log's file, in its own thread."""


@dataclass(slots=True)
class Shared:
    """What all writers of one log work with."""

    file: LogFile
    store: Store
    remaker: Remaker
    on_file: OnFile
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    tip: int = 0
    """The last mutation that is known to be accepted."""


@dataclass(slots=True)
class Writer:
    """One physical collection and how far it has come."""

    target: str
    making: Making | None
    """What its vectors are made with; None: the same as every record's."""
    shared: Shared
    applied: int = 0
    """The last mutation that it has, with all before it."""
    refused: dict[int, str] = field(default_factory=dict)
    failed: int = 0
    """Points whose vectors could not be made for it."""
    last_failure: str | None = None
    """Why it does not take what is to be applied; None while it does."""
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on from what the file says."""
        file, on_file = self.shared.file, self.shared.on_file
        self.applied = await on_file(partial(file.applied, self.target))
        self.refused = await on_file(partial(file.refused, self.target))
        self.failed, _ = await on_file(partial(file.failed, self.target, 0))
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End it; what it has not applied the next one applies."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def note_failed(
        self, version: int, points: Sequence[Point], failed: Sequence[FailedWrite]
    ) -> None:
        """Note which of some points could not be made, and that the others could."""
        if not failed and not self.failed:
            return
        file, on_file = self.shared.file, self.shared.on_file
        ids = [point.id for point in points]
        await on_file(partial(file.note_failed, self.target, version, ids, failed))
        self.failed, _ = await on_file(partial(file.failed, self.target, 0))

    async def _run(self) -> None:
        """Bring it what it has not; runs until cancelled."""
        failures = 0
        while True:
            try:
                await self._write_some()
                failures = 0
            except (sqlite3.Error, OSError) as error:
                failures += 1
                self.last_failure = f"the log cannot be used: {error}"
                pause = exponential(failures, FIRST_RETRY_SECONDS, RETRY_LIMIT_SECONDS)
                log.error("the log cannot be used", error=str(error), again_in=pause)  # noqa: TRY400
                await asyncio.sleep(pause)

    async def _write_some(self) -> None:
        """Bring it the next few changes, once there are some."""
        shared = self.shared
        async with shared.moved:
            await shared.moved.wait_for(lambda: self.applied < shared.tip)
        records = await shared.on_file(partial(shared.file.after, self.applied, AT_ONCE))
        if not records:
            raise RuntimeError(f"mutations after {self.applied} are missing from the log")
        reasons = await asyncio.gather(*(self._apply(each) for each in records))
        refused = [(r.version, why) for r, why in zip(records, reasons, strict=True) if why]
        last = records[-1].version
        await shared.on_file(partial(shared.file.note_applied, self.target, last, refused))
        async with shared.moved:
            self.applied = last
            self.refused.update(refused)
            shared.moved.notify_all()

    async def _apply(self, record: Record) -> str | None:
        """Apply a mutation, however long the store is away; return why it would not take it."""
        attempt = 0
        while True:
            try:
                await self._apply_once(record)
            except StoreUnavailable as error:
                attempt += 1
                self.last_failure = str(error)
                pause = exponential(attempt, FIRST_RETRY_SECONDS, RETRY_LIMIT_SECONDS)
                log.warning(
                    "a collection takes no changes",
                    target=self.target,
                    error=str(error),
                    again_in=pause,
                )
                await asyncio.sleep(pause)
            except StoreRefused as error:
                log.error(  # noqa: TRY400 - the store's words say it all
                    "the store refuses a change that was accepted",
                    target=self.target,
                    version=record.version,
                    error=str(error),
                )
                return str(error)
            else:
                self.last_failure = None
                return None

    async def _apply_once(self, record: Record) -> None:
        points, failed = record.points, []
        source, target = record.made_with, self.making
        if source is not None and target is not None and source != target:
            remade = await self.shared.remaker.remade(points, source, target)
            points = remade.points
            failed = [FailedWrite(i, record.version, why) for i, why in remade.failed.items()]
        await self.shared.store.write(self.target, points, record.version)
        await self.note_failed(record.version, points, failed)
