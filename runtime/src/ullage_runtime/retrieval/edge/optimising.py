"""Building indexes: in a child process on a copy, which then takes the shard's place.

The engine holds the GIL while it optimises, for seconds to minutes. The copy is optimised by
somebody else, while the shard goes on to be read and written; what was written meanwhile is written
to the copy too before it takes over. The volume's table names the old folder until the very end, so
whoever dies in between loses work, never a point.

While points keep coming, an index is built of the new ones only, as a segment of its own: searches
go through each point that has none, and an index of all takes ten times as long. Once nobody writes
for a while the segments are merged: one is searched faster than several.
"""

import asyncio
import json
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import qdrant_edge as edge
import structlog

from ullage_runtime.core.backoff import exponential
from ullage_runtime.retrieval.edge import layout as layouts
from ullage_runtime.retrieval.edge.shards import Shard, Shards, is_split

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often shards are looked at."""
LEAST_CHANGES: Final = 2000
"""Points that must have been written before an optimisation is worth its copy."""
SHARE: Final = 0.05
"""Share of a shard's points that must have been written: all are copied for it."""
LARGE_SHARE: Final = 0.2
"""Share that is worth it even if the new points are too few for the engine to index."""
MERGED: Final = 1
"""Segments with an index, of a shard that nobody writes to."""
SEGMENTS_MEANWHILE: Final = 8
"""Segments that a shard may come to have while it is written to."""
QUIET_SECONDS: Final = 30.0
"""How long nobody has written once it is worth merging the segments."""
LARGEST_JOURNAL: Final = 20_000
"""Changes made meanwhile beyond which the copy is given up: it would never catch up."""
AT_ONCE: Final = 16
"""Changes made to the copy before others get their turn."""
LIMIT_SECONDS: Final = 3600.0
"""Longest that an optimisation may take."""
LEAST_BACKOFF: Final = 5.0
LARGEST_BACKOFF: Final = 300.0


class OptimisationFailed(Exception):  # noqa: N818 - named after what happened
    """The child process did not bring it about."""


@dataclass(slots=True)
class Optimiser:
    """Keeps the shards of an owner in good shape."""

    shards: Shards
    least_changes: int = LEAST_CHANGES
    quiet_seconds: float = QUIET_SECONDS
    writable: dict[str, asyncio.Event] = field(default_factory=dict)
    """By collection: not set while its files are being copied."""
    failures: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Optimise what needs it; runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for shard in self.shards:
                if (segments := self._due(shard)) is not None:
                    await self._tried(shard, segments)

    async def wait_writable(self, name: str) -> None:
        """Wait until a collection's files are not being copied."""
        name = self.shards.volume.table.aliases.get(name, name)
        event = self.writable.get(name)
        if event is not None:
            await event.wait()

    async def _tried(self, shard: Shard, segments: int) -> None:
        try:
            await self.optimise(shard, segments)
            self.failures = 0
        except (OptimisationFailed, OSError) as error:
            self.failures += 1
            pause = exponential(self.failures, LEAST_BACKOFF, LARGEST_BACKOFF)
            log.warning(
                "an index could not be built",
                collection=shard.name,
                error=str(error),
                again_in=pause,
            )
            await asyncio.sleep(pause)

    def _due(self, shard: Shard) -> int | None:
        """Return how many segments a shard is to have at most; None while it is well as it is."""
        if shard.is_wanted:
            return MERGED
        info = shard.engine.info()
        enough = max(layouts.indexable(shard.entry.layout), SHARE * info.points_count)
        if shard.changes >= max(self.least_changes, min(enough, LARGE_SHARE * info.points_count)):
            return SEGMENTS_MEANWHILE
        is_quiet = time.monotonic() >= shard.changed_at + self.quiet_seconds
        return MERGED if is_quiet and shard.is_split else None

    async def optimise(self, shard: Shard, segments: int = MERGED) -> None:
        """Optimise a shard; raises OptimisationFailed or OSError, and then nothing has changed.

        One at a time: each takes the memory and the processors of another shard.
        """
        async with self._turn:
            await self._optimise(shard, segments)

    async def _optimise(self, shard: Shard, segments: int) -> None:
        folder = self.shards.volume.new_folder()
        changes, was_wanted = shard.changes, shard.is_wanted
        # Whoever asks from here on asks for the next one.
        shard.is_wanted = was_wanted and segments != MERGED
        try:
            await self._copy(shard, folder)
            await self._child(shard, folder, segments)
            await self._take_over(shard, folder)
            shard.changes -= changes
            shard.is_split = segments != MERGED and is_split(shard.engine)
        except BaseException:
            shard.is_wanted = shard.is_wanted or was_wanted
            self.shards.volume.remove(folder)
            raise
        finally:
            shard.journal = None

    async def _copy(self, shard: Shard, folder: str) -> None:
        volume = self.shards.volume
        source = volume.path_of(shard.entry)
        event = self.writable[shard.name] = asyncio.Event()
        try:
            shard.engine.flush()
            shard.journal = []
            await asyncio.to_thread(shutil.copytree, source, source.parent / folder)
        finally:
            event.set()
            del self.writable[shard.name]

    async def _child(self, shard: Shard, folder: str, segments: int) -> None:
        path = self.shards.volume.path_of(shard.entry).parent / folder
        change = {"optimizers_config": {"default_segment_number": segments}}
        layout = layouts.merged(dict(shard.entry.layout), change)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ullage_runtime.retrieval.edge", "optimise", str(path),
            json.dumps(layout),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                words = await self._watched(child, shard)
        except TimeoutError as error:
            raise OptimisationFailed(f"it took more than {LIMIT_SECONDS:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            raise OptimisationFailed(f"the child exited with {child.returncode}: {words}")

    async def _watched(self, child: asyncio.subprocess.Process, shard: Shard) -> str:
        ended = asyncio.create_task(child.communicate())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=LOOK_SECONDS)
                self._check(shard)
            return (await ended)[1].decode(errors="replace").strip()[-400:]
        finally:
            ended.cancel()

    def _check(self, shard: Shard) -> None:
        if shard.journal is not None and len(shard.journal) > LARGEST_JOURNAL:
            raise OptimisationFailed(
                f"more than {LARGEST_JOURNAL} changes were made meanwhile; writers are too fast"
            )

    def _check_there(self, shard: Shard) -> None:
        if not any(each is shard for each in self.shards):
            raise OptimisationFailed("the collection is gone")

    async def _take_over(self, shard: Shard, folder: str) -> None:
        """Make the copy whole and let it take over."""
        path = self.shards.volume.path_of(shard.entry).parent / folder
        config = layouts.config_of(shard.entry.layout)
        engine = edge.EdgeShard.load(str(path), config)
        try:
            done = 0
            while len(shard.journal or ()) - done > AT_ONCE:
                for change in (shard.journal or [])[done : done + AT_ONCE]:
                    change(engine)
                done += AT_ONCE
                self._check(shard)
                await asyncio.sleep(0)
            # From here on nobody else has a turn.
            for change in (shard.journal or [])[done:]:
                change(engine)
            engine.flush()
            self._check_there(shard)
            self.shards.replace(shard, folder, engine)
        except BaseException:
            engine.close()
            raise
