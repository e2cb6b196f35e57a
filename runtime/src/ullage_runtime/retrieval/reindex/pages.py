"""A page of points copied from one physical collection to another, while both are written."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ullage_runtime.core.errors import DiskFull
from ullage_runtime.core.reindexing.joining import order
from ullage_runtime.retrieval.log.file import FailedWrite
from ullage_runtime.retrieval.making import Making, Remaker
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.reindex.wire import FailedPoint, PageRequest, PageResult
from ullage_runtime.retrieval.stores.port import (
    VERSION,
    Carried,
    Point,
    StoreRefused,
    StoreUnavailable,
    Stretch,
)

_FULL: Final = ("No space left", "disk is full", "os error 28", "Errno 28", "Disk quota")


async def copied(
    scene: Scene, record: JobRecord, remaker: Remaker, asked: PageRequest
) -> PageResult:
    """Copy a page and return what became of it.

    What is newer than the barrier reaches the target by being written there, and is left alone.
    Raises StoreUnavailable or DiskFull, and then the page is to be asked for again.
    """
    began = time.perf_counter()
    source, target = record.source, record.target
    if source is None or target is None:
        raise RuntimeError("the job has no collections yet")
    making, wanted = scene.routing.making_of(source), Making.of(record.made)
    if making.makes_like(wanted):
        carried = await _carried(scene, source, target, asked, record.barrier + 1)
        if carried is not None:
            return PageResult(
                next=carried.next,
                copied=carried.copied,
                skipped=carried.seen - carried.copied,
                seconds=time.perf_counter() - began,
            )
    points, following = await scene.store.scroll(
        source,
        after=asked.range.first if asked.next is None else asked.next,
        limit=asked.limit,
        vectors=True,
    )
    last = asked.range.last
    if last is not None:
        inside = [point for point in points if order(point.id) <= order(last)]
        if len(inside) < len(points) or (following is not None and order(following) > order(last)):
            following = None
        points = inside
    old = [p for p in points if not p.is_tombstone and p.version <= record.barrier]
    remade = await remaker.remade(old, making, wanted)
    whole = [_with_version(point) for point in remade.points]
    failed = [
        FailedWrite(p.id, p.version, remade.failed[p.id]) for p in old if p.id in remade.failed
    ]
    if whole:
        with _room(target):
            await scene.store.copy(target, whole, record.barrier + 1)
    writer = scene.changes.writer(target)
    if writer is not None:
        await writer.note_failed(record.barrier, whole, failed)
    return PageResult(
        next=following,
        copied=len(whole) - len(failed),
        skipped=len(points) - len(old),
        failed=tuple(FailedPoint(id=each.id, reason=each.reason) for each in failed),
        seconds=time.perf_counter() - began,
    )


def _with_version(point: Point) -> Point:
    """Return a point that says its version, a foreign writer's too."""
    return replace(point, payload={**point.payload, VERSION: point.version})


async def _carried(
    scene: Scene, source: str, target: str, asked: PageRequest, before: int
) -> Carried | None:
    after = asked.range.first if asked.next is None else asked.next
    with _room(target):
        return await scene.store.carry(
            Stretch(source, target, after, asked.range.last, asked.limit, before)
        )


@contextmanager
def _room(target: str) -> Iterator[None]:
    """Say it plainly when the target has no room."""
    try:
        yield
    except (StoreUnavailable, StoreRefused) as error:
        if any(word in str(error) for word in _FULL):
            raise DiskFull(
                f"the store has no room left for {target!r}: {error}; enlarge its volume, or "
                "cancel the job"
            ) from error
        raise
