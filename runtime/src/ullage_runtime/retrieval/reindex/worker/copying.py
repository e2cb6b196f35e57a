"""Copying: pages of frozen ranges, as many at once and as fast as may be."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import structlog

from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_runtime.core.reindexing.ranges import LEAST_POINTS, Divider
from ullage_runtime.core.reindexing.rate import BURST_SECONDS
from ullage_runtime.retrieval.reindex.wire import (
    MAX_PAGE,
    MAX_VERSIONS,
    CheckpointRequest,
    FailureRequest,
    PageRequest,
    Range,
    RangeProgress,
)
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod

log = structlog.stdlib.get_logger(__name__)

IN_FLIGHT: Final = 4
"""Pages at once, if nobody says."""
EMBEDDED_PAGE: Final = 64
"""Points of a page that a model embeds: a pause, or a loss, waits for one."""
LEAST_PAGE: Final = 8
KEEP_SECONDS: Final = 2.0
"""How often a checkpoint is kept."""
RATE_SECONDS: Final = 15.0
"""The time of which the rate tells."""
CRITICAL_PAUSE: Final = 1.0


@dataclass(slots=True)
class Meter:
    """How many points were copied of late."""

    _marks: deque[tuple[float, int]] = field(default_factory=deque)
    _total: int = 0

    def add(self, points: int, now: float) -> None:
        """Count points."""
        self._total += points
        self._marks.append((now, self._total))
        while self._marks[-1][0] - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Points per second."""
        if len(self._marks) < 2:  # noqa: PLR2004 - a rate has two ends
            return 0.0
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if last > first else 0.0


class Copying:
    """One worker's copy of one job, from a checkpoint on."""

    def __init__(self, pod: Pod, leased: Leased) -> None:
        self._pod = pod
        self._leased = leased
        self._progress: list[RangeProgress] = []
        self._pending: deque[int] = deque()
        self._meter = Meter()
        self._keeping = asyncio.Lock()
        self._kept_at = float("-inf")
        self._paying = asyncio.Lock()
        self._is_ended = False

    async def run(self) -> None:
        """Copy until everything is, or the job is in another phase; what is done is kept."""
        await self._begin()
        in_flight = max(1, self._leased.lease.max_in_flight or IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(in_flight, max(1, len(self._pending)))):
                    group.create_task(self._copy_ranges())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self._keep(always=True)

    @property
    def _embeds(self) -> bool:
        plan = self._leased.lease.plan
        return plan is not None and plan.embeds

    @property
    def _goes_on(self) -> bool:
        return self._leased.lease.phase is ReindexPhase.COPYING and not self._is_ended

    async def _begin(self) -> None:
        lease = self._leased.lease
        self._progress = list(lease.checkpoint)
        if not self._progress:
            ranges = await self._ranges()
            self._progress = [RangeProgress(range=each) for each in ranges]
            # Frozen: whoever goes on has the same ranges.
            await self._keep(always=True)
        self._pending.extend(n for n, each in enumerate(self._progress) if not each.is_done)
        log.info("copying", ranges=len(self._progress), left=len(self._pending), points=lease.total)

    async def _ranges(self) -> list[Range]:
        lease = self._leased.lease
        # Pages of one range come one by one: a model would wait while each is read and written.
        least = EMBEDDED_PAGE if self._embeds else LEAST_POINTS
        divider, after = Divider(lease.total, least), None
        if lease.source is None:
            raise RuntimeError(f"the pod names no source for plan {lease.plan}")
        while True:
            page = await self._pod.versions(lease.source, after, MAX_VERSIONS)
            divider.add(point.id for point in page.points)
            after = page.next
            if after is None:
                break
        return [
            Range(index=index, first=each.first, last=each.last)
            for index, each in enumerate(divider.ranges())
        ]

    async def _copy_ranges(self) -> None:
        while self._pending and self._goes_on:
            index = self._pending.popleft()
            while not self._progress[index].is_done and self._goes_on:
                await self._copy_page(index)

    async def _copy_page(self, index: int) -> None:
        lease, progress = self._leased.lease, self._progress[index]
        # A slow copy has small pages: the rate is that of every few seconds. They are of one size,
        # as a range's last one is paid for like the others.
        slow = max(LEAST_PAGE, int(self._leased.pace.rate * BURST_SECONDS))
        most = EMBEDDED_PAGE if self._embeds else MAX_PAGE
        limit = math.ceil(most / math.ceil(most / slow))
        if not await self._paid(limit):
            return
        result = await self._pod.page(
            PageRequest(token=lease.token, range=progress.range, next=progress.next, limit=limit)
        )
        self._progress[index] = progress.model_copy(
            update={
                "next": result.next,
                "is_done": result.next is None,
                "copied": progress.copied + result.copied,
                "skipped": progress.skipped + result.skipped,
                "failed": progress.failed + len(result.failed),
            }
        )
        for each in result.failed:
            log.warning("a point cannot be copied", point=each.id, reason=each.reason)
        self._meter.add(result.copied, self._leased.clock())
        self._leased.note(result.load)
        if await self._has_failed(sum(each.failed for each in self._progress)):
            return
        await self._keep()

    async def _paid(self, points: int) -> bool:
        """Wait until points may be copied; False when the job goes no further meanwhile."""
        pace, clock = self._leased.pace, self._leased.clock
        # In turn: whoever waits longest is next.
        async with self._paying:
            while self._goes_on:
                wait = pace.wait(points, clock())
                if wait == 0:
                    pace.spend(points, clock())
                    return True
                # Never for long: rate, load and phase may be others soon.
                pause = CRITICAL_PAUSE if wait is None else min(wait, CRITICAL_PAUSE)
                await asyncio.sleep(pause)
        return False

    async def _has_failed(self, failed: int) -> bool:
        """Give the job up when more points failed than may be left out."""
        lease = self._leased.lease
        if failed <= lease.max_failed:
            return False
        if not self._is_ended:
            self._is_ended = True
            message = f"{failed} points cannot be copied, {lease.max_failed} may be left out"
            await self._pod.fail(FailureRequest(token=lease.token, message=message))
        return True

    async def _keep(self, *, always: bool = False) -> None:
        now = self._leased.clock()
        if not always and now - self._kept_at < KEEP_SECONDS:
            return
        async with self._keeping:
            self._kept_at = now
            lease, rate = self._leased.lease, self._meter.rate
            seen = sum(each.copied + each.skipped + each.failed for each in self._progress)
            left = max(0, lease.total - seen)
            await self._pod.keep(
                CheckpointRequest(
                    token=lease.token,
                    configuration=lease.configuration,
                    ranges=tuple(self._progress),
                    rate=rate,
                    eta_seconds=round(left / rate) if rate else None,
                )
            )
