"""What is done to a collection for a reindex job; each step does no harm when done twice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_settings import OldCollection
from ullage_api.kinds.vector_collection import MultivectorType, SparseType
from ullage_runtime.retrieval.founding import index_fields
from ullage_runtime.retrieval.log.file import KeptJob, Routing
from ullage_runtime.retrieval.opening import view_of
from ullage_runtime.retrieval.profiles import layout_of
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.stores.port import StoreRefused

log = structlog.stdlib.get_logger(__name__)

JOB: Final = "ullageReindex"
"""Field of a physical collection's metadata with the job that made it."""
SWITCH_SECONDS: Final = 10.0
"""Longest that writes wait for a switch; what does not catch up by then is tried again."""
BACK_SECONDS: Final = 30.0
"""Likewise, for the way back."""


async def begun(scene: Scene, record: JobRecord) -> JobRecord:
    """Return the record with what a job works on: kept before anything is made."""
    wanted, source = scene.wanted, scene.routing.read
    record = record.model_copy(
        update={
            "wanted": wanted,
            "wanted_generation": scene.held.desired.generation,
            "source": source,
        }
    )
    if record.plan is ReindexPlan.RECHUNK:
        total = await scene.ingestion.cut_otherwise()
        return record.model_copy(update={"target": source, "total": total})
    if record.plan is ReindexPlan.IN_PLACE:
        found = await scene.store.describe(source)
        if found is None:
            raise StoreRefused(f"the store has no {source!r}")
        before = {"hnsw": dict(found.layout.hnsw), "quantization": found.layout.quantization}
        total = await scene.collection.count()
        return record.model_copy(update={"target": source, "total": total, "before": before})
    space = await scene.embedder.space(wanted.embedding.model_deployment)
    made: dict[str, Any] = {
        "name": space.model,
        "revision": space.revision,
        "dimensions": space.dimensions,
        "token_width": space.token_width,
        "sparse": (wanted.sparse or SparseType.BM25).value,
        "multivector": (wanted.multivector or MultivectorType.NONE).value,
    }
    epoch = await _free_epoch(scene)
    return record.model_copy(
        update={
            "epoch": epoch,
            "target": f"{scene.name}-{epoch}",
            "made": made,
            "total": await scene.collection.count(),
        }
    )


async def _free_epoch(scene: Scene) -> int:
    """Return the next epoch whose name nobody has taken in the store."""
    epoch = scene.routing.epoch + 1
    while await scene.store.describe(f"{scene.name}-{epoch}") is not None:
        epoch += 1
    return epoch


async def prepare(scene: Scene, record: JobRecord) -> None:
    """Make the target and the indexes of its fields."""
    target, wanted = record.target, record.wanted
    if target is None or wanted is None or not record.switches:
        return
    found = await scene.store.describe(target)
    if found is None:
        layout = replace(
            layout_of(wanted, int(record.made["dimensions"]), record.token_width),
            metadata={JOB: record.uid},
        )
        await scene.store.create(target, layout)
    there = {} if found is None else found.payload_indexes
    await index_fields(wanted, scene.store, target, there)


async def add_views(scene: Scene, record: JobRecord) -> None:
    """Know how both sides of a job are read, after a restart too."""
    for physical in {record.source, record.target} & set(scene.routing.write):
        if physical is None or physical == scene.routing.read:
            continue
        found = await scene.store.describe(physical)
        if found is not None:
            view = view_of(scene.wanted, scene.routing, physical, found.layout)
            scene.collection.add_view(view)


async def dual_write(scene: Scene, record: JobRecord) -> JobRecord:
    """Have what is written go to the target too; return the record with the barrier."""
    target = _named(record.target)
    kept = record

    def change(routing: Routing) -> Routing:
        model = dict(routing.model)
        # One of an earlier release may not say it.
        model.setdefault("name", scene.collection.model)
        others = {**routing.others, target: record.made}
        return replace(routing, write=(routing.read, target), model=model, others=others)

    def noted(barrier: int) -> KeptJob:
        nonlocal kept
        kept = record.model_copy(update={"barrier": barrier})
        return kept.kept()

    await scene.changes.reroute(change, noted)
    await add_views(scene, kept)
    return kept


async def switch(scene: Scene, record: JobRecord) -> None:
    """Commit that the target is read, with the model that its vectors are of."""
    target, source = _named(record.target), _named(record.source)
    await add_views(scene, record)

    def change(routing: Routing) -> Routing:
        return Routing(
            record.epoch or routing.epoch + 1,
            target,
            (target, source),
            record.made,
            {source: routing.model},
        )

    await scene.changes.reroute(change, settled=(target,), seconds=SWITCH_SECONDS)
    log.info("searches are switched", collection=scene.name, source=source, target=target)


async def switch_back(scene: Scene, record: JobRecord) -> None:
    """Commit that the source is read again, or have the index built as it was."""
    if record.before is not None:
        source = _named(record.source)
        await scene.store.alter(source, record.before["hnsw"], record.before["quantization"])
        await scene.store.build(source)
        return
    target, source = _named(record.target), _named(record.source)
    await add_views(scene, record)

    def change(routing: Routing) -> Routing:
        return Routing(
            routing.epoch + 1,
            source,
            (source, target),
            routing.model_of(source),
            {target: routing.model},
        )

    await scene.changes.reroute(change, settled=(source,), seconds=BACK_SECONDS)
    log.info("searches are switched back", collection=scene.name, source=source, target=target)


async def stop_writing(scene: Scene, record: JobRecord) -> None:
    """Have what is written go only where it is read."""

    def change(routing: Routing) -> Routing:
        # The name of a target that was given up is not used again.
        given_up = routing.read != record.target
        epoch = max(routing.epoch, record.epoch or 0) if given_up else routing.epoch
        return Routing(epoch, routing.read, (routing.read,), routing.model)

    await scene.changes.reroute(change)


def removable(scene: Scene, record: JobRecord) -> list[str]:
    """Return what of a job's collections nobody reads or writes, and nobody wants to keep."""
    names = {record.source, record.target} - scene.routing.named - {None}
    is_done = record.phase in {ReindexPhase.CLEANING, ReindexPhase.SUCCEEDED}
    if is_done and record.effective.old_collection is OldCollection.RETAIN:
        names -= {record.source}
    return sorted(name for name in names if name is not None)


async def remove(scene: Scene, record: JobRecord) -> bool:
    """Remove what nobody reads or writes; False while somebody still reads it."""
    for physical in removable(scene, record):
        if scene.collection.readers(physical):
            return False
        await scene.store.drop(physical)
        scene.collection.remove_view(physical)
        log.info("physical collection removed", collection=scene.name, physical=physical)
    await point_alias(scene)
    return True


async def point_alias(scene: Scene) -> None:
    """Have outsiders find what is read by the collection's name."""
    read = scene.routing.read
    if await _wants_alias(scene, await scene.store.aliases()):
        await scene.store.point_alias(scene.name, read)
    await scene.held.align()


async def is_alias_right(scene: Scene) -> bool:
    """Whether outsiders find what is read by the collection's name."""
    aliases = await scene.store.aliases()
    if not await _wants_alias(scene, aliases):
        return True
    return aliases.get(scene.name) == scene.routing.read


async def _wants_alias(scene: Scene, aliases: Mapping[str, str]) -> bool:
    """Whether the name can be an alias: not while a physical collection has it."""
    if scene.routing.read == scene.name:
        return False
    return scene.name in aliases or await scene.store.describe(scene.name) is None


async def build(scene: Scene, record: JobRecord) -> None:
    """Have the store build the index now, in place: as it is wanted."""
    target, wanted = _named(record.target), record.wanted
    if record.plan is ReindexPlan.IN_PLACE and wanted is not None:
        has = scene.collection.layout
        layout = layout_of(wanted, has.dimensions, has.token_width)
        await scene.store.alter(target, layout.hnsw, layout.quantization)
    await scene.store.build(target)


def _named(physical: str | None) -> str:
    if physical is None:
        raise RuntimeError("the job has no collections yet")
    return physical
