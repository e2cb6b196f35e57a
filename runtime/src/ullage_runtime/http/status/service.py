"""One viewer's feed: the state, then what changes, at once and at most some fifty times a second.

There is no queue. A feed remembers what it has told last, and each message is computed from what is
so when it can be sent: whoever reads slowly misses what lies between, never the present.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Final

from ullage_api.wire.pod_report import PodReport
from ullage_runtime.http.auth import Key
from ullage_runtime.http.ops.memory_objects import MemoryDecision, decision_memory, may_see
from ullage_runtime.http.status.schema import Cursor, StatusMessage
from ullage_runtime.http.status.view import View, differences
from ullage_runtime.models.ports import Models

TICK_SECONDS: Final = 1.0
"""How often numbers that move all the time are told."""
SAMPLE_SECONDS: Final = 2.0
"""How long a measurement may take."""
PAUSE_SECONDS: Final = 0.02
"""Least time between two messages, so that many small changes come as one."""
HEARTBEAT_SECONDS: Final = 10.0
"""Longest silence."""
FIRST_DECISIONS: Final = 20
"""How many of the latest decisions come with the state."""


class Feed:
    """What one viewer is told, from where its cursor says or from the start."""

    def __init__(
        self, models: Models, key: Key | None, after: Cursor | None, now: Callable[[], float]
    ) -> None:
        self._models = models
        self._key = key
        self._after = after
        self._now = now
        self._told = View()
        self._decision = 0

    async def messages(self) -> AsyncGenerator[StatusMessage]:
        """Yield messages without end."""
        sampler = asyncio.create_task(self._sample())
        loop = asyncio.get_running_loop()
        try:
            report = self._models.report()
            spoke = loop.time()
            yield self._resumed(report) or self._state(report)
            while True:
                await asyncio.sleep(PAUSE_SECONDS)
                report = await self._models.changed(report.sequence, TICK_SECONDS)
                message = self._changes(report)
                if message is None and loop.time() - spoke >= HEARTBEAT_SECONDS:
                    message = self._message("status.heartbeat", report)
                if message is not None:
                    spoke = loop.time()
                    yield message
        finally:
            sampler.cancel()
            await asyncio.gather(sampler, return_exceptions=True)

    async def _sample(self) -> None:
        """Have models measured while somebody looks; an engine that does not answer is left."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAMPLE_SECONDS):
                    await self._models.sample()
            await asyncio.sleep(TICK_SECONDS)

    def _state(self, report: PodReport) -> StatusMessage:
        """Return everything."""
        now = View.of(report, self._key)
        self._told = now
        decisions = self._new_decisions()[:FIRST_DECISIONS]
        return self._message(
            "status.state",
            report,
            devices=list(now.devices.values()),
            models=list(now.models.values()),
            decisions=decisions,
        )

    def _resumed(self, report: PodReport) -> StatusMessage | None:
        """Return what has changed since the viewer's cursor; None if nobody can tell."""
        after = self._after
        if after is None or after.boot != report.boot_id:
            return None
        changed = self._models.models_changed_since(after.sequence)
        if changed is None:
            return None
        now = View.of(report, self._key)
        before = now.known_except(changed)
        self._told, self._decision = now, after.decision
        return self._message(
            "status.changes",
            report,
            devices=list(now.devices.values()),
            models=differences(before.models, now.models),
            gone=sorted(
                name
                for name in changed
                if name and name not in now.models and may_see(self._key, name)
            ),
            decisions=self._new_decisions(),
        )

    def _changes(self, report: PodReport) -> StatusMessage | None:
        """Return what is different from what was told last, if anything is."""
        before, now = self._told, View.of(report, self._key)
        devices = differences(before.devices, now.devices)
        models = differences(before.models, now.models)
        gone = sorted(before.models.keys() - now.models.keys())
        decisions = self._new_decisions()
        self._told = now
        if not (devices or models or gone or decisions):
            return None
        return self._message(
            "status.changes", report, devices=devices, models=models, gone=gone, decisions=decisions
        )

    def _new_decisions(self) -> list[MemoryDecision]:
        """Return the decisions that were not told yet, newest first."""
        latest = self._models.decisions()
        new = [d for d in latest if d.id > self._decision and may_see(self._key, d.model)]
        if latest:
            self._decision = latest[0].id
        return [decision_memory(d, self._key) for d in new]

    def _message(self, kind: str, report: PodReport, **content: object) -> StatusMessage:
        cursor = Cursor(report.boot_id, report.sequence, self._decision)
        return StatusMessage.model_validate(
            {
                "object": kind,
                "cursor": str(cursor),
                "time": datetime.fromtimestamp(self._now(), UTC),
                "pod": report.pod,
                "level": report.level,
                "devices": [],
                "models": [],
                "gone": [],
                "decisions": [],
                **content,
            }
        )
