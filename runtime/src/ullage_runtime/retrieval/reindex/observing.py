"""What is so of a reindex job, looked at afresh; only what its phase asks about costs a request."""

from dataclasses import dataclass, field
from typing import Final

from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_runtime.core.reindexing.machine import Facts
from ullage_runtime.core.reindexing.planning import Outlook
from ullage_runtime.retrieval.profiles import differences, layout_of
from ullage_runtime.retrieval.reindex.acting import is_alias_right, removable
from ullage_runtime.retrieval.reindex.outlooks import outlook_of
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene

OUTLOOK_SECONDS: Final = 5.0
"""How long the way there is taken to be the same: finding it counts points."""
_IDLE: Final = frozenset({Phase.PENDING, Phase.QUEUED})
_UNDOING: Final = frozenset({Phase.ROLLING_BACK, Phase.CANCELLING})


@dataclass(slots=True)
class Turn:
    """Whether a job may begin."""

    is_it: bool = False
    behind: str = ""
    """Which job goes first."""


@dataclass(slots=True)
class Observer:
    """Looks at one job's collection."""

    build_asked: bool = False
    """Whether this process has asked the store to build the index."""
    _outlook: tuple[float, object, Outlook] | None = field(default=None)

    async def facts(self, scene: Scene, record: JobRecord, turn: Turn) -> Facts:
        """Return what is so."""
        phase, routing = record.phase, scene.routing
        failure = record.failure
        target, source = record.target, record.source
        writer = None if target is None else scene.changes.writer(target)
        reader = None if source is None else scene.changes.writer(source)
        copied_tip = record.copied_tip
        return Facts(
            outlook=await self._way(scene, record, turn) if phase in _IDLE else None,
            is_turn=turn.is_it,
            queued_behind=turn.behind,
            is_prepared=phase is Phase.PREPARING and await _is_prepared(scene, record),
            writes_target=target in routing.write,
            writes_source=source in routing.write and source != routing.read,
            writers_know=reader is not None and reader.applied >= record.barrier,
            is_copied=await _is_copied(scene, record) if phase is Phase.COPYING else False,
            is_caught_up=not record.switches
            or (copied_tip is not None and writer is not None and writer.applied >= copied_tip),
            is_built=phase is Phase.INDEXING and await self._is_built(scene, record),
            is_restored=phase is not Phase.ROLLING_BACK or await _is_restored(scene, record),
            verified=record.verified,
            reads_target=record.switches and routing.read == target,
            is_alias_right=phase not in {Phase.SOAKING, *_UNDOING} or await is_alias_right(scene),
            is_clean=phase not in {Phase.CLEANING, *_UNDOING} or await _is_clean(scene, record),
            failure=None if failure is None else (failure.reason, failure.message),
        )

    async def _way(self, scene: Scene, record: JobRecord, turn: Turn) -> Outlook:
        """Return the way there: afresh when it is the job's turn, as others went before."""
        now = scene.now()
        about = (scene.routing.epoch, scene.held.desired, turn.is_it)
        kept = self._outlook
        if kept is None or kept[1] != about or now - kept[0] >= OUTLOOK_SECONDS:
            kept = self._outlook = now, about, await outlook_of(scene, record)
        return kept[2]

    async def _is_built(self, scene: Scene, record: JobRecord) -> bool:
        if record.plan is ReindexPlan.RECHUNK:
            return True
        found = None if record.target is None else await scene.store.describe(record.target)
        if found is not None and found.is_put_off:
            self.build_asked = False  # a server that was started again waits to be told again
        if found is None or not self.build_asked or not found.is_optimised:
            return False
        if record.plan is ReindexPlan.IN_PLACE and record.wanted is not None:
            has = found.layout
            wanted = layout_of(record.wanted, has.dimensions, has.token_width)
            return not differences(wanted, has)
        return True


async def _is_prepared(scene: Scene, record: JobRecord) -> bool:
    if record.target is None or record.wanted is None:
        return False
    if not record.switches:
        return True
    found = await scene.store.describe(record.target)
    fields = {each.field for each in record.wanted.payload_indexes or ()}
    return found is not None and fields <= set(found.payload_indexes)


async def _is_copied(scene: Scene, record: JobRecord) -> bool:
    if record.plan is ReindexPlan.RECHUNK:
        return await scene.ingestion.cut_otherwise() == 0
    return record.copied_tip is not None


async def _is_restored(scene: Scene, record: JobRecord) -> bool:
    if record.before is None or record.source is None:
        return True
    found = await scene.store.describe(record.source)
    if found is None or not found.is_optimised:
        return False
    hnsw = {name: found.layout.hnsw.get(name) for name in record.before["hnsw"]}
    wanted = (record.before["hnsw"], record.before["quantization"])
    return (hnsw, found.layout.quantization) == wanted


async def _is_clean(scene: Scene, record: JobRecord) -> bool:
    for physical in removable(scene, record):
        if await scene.store.describe(physical) is not None:
            return False
    return await is_alias_right(scene)
