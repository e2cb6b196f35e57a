"""What there is and what is wanted of a collection, as the planner of reindex jobs sees it."""

import asyncio
import shutil
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_settings import ReindexMode
from ullage_api.kinds.vector_collection import DistanceType, MultivectorType, SparseType, StoreType
from ullage_runtime.core.errors import (
    InsufficientMemory,
    InvalidRequest,
    ModelNotFound,
    ServingError,
)
from ullage_runtime.core.reindexing.planning import Built, Outlook, Refused, Room, outlook
from ullage_runtime.retrieval.collection import TEXT
from ullage_runtime.retrieval.embedding import Space
from ullage_runtime.retrieval.founding import check_outputs
from ullage_runtime.retrieval.log.changes import live
from ullage_runtime.retrieval.profiles import layout_of
from ullage_runtime.retrieval.reindex.record import JobRecord
from ullage_runtime.retrieval.reindex.scene import Scene
from ullage_runtime.retrieval.stores.port import DENSE, Description, Layout

PAYLOAD_BYTES: Final = 1024
"""What a point takes besides its vectors, about."""


async def outlook_of(scene: Scene, record: JobRecord) -> Outlook:
    """Return the way from what a collection has to its spec, or why there is none."""
    found = await scene.store.describe(scene.routing.read)
    if found is None:
        return Refused(
            Reason.STORE_UNAVAILABLE, f"the store has no {scene.routing.read!r}", is_final=False
        )
    space = await _space(scene)
    if isinstance(space, Refused):
        return space
    spec = record.effective
    verify = spec.verify
    return outlook(
        has_of(scene, found.layout, space),
        wants_of(scene, space),
        await _room(scene, found),
        copies=spec.mode is ReindexMode.COPY,
        may_fail=(verify.max_failed if verify else None) or 0,
    )


async def _space(scene: Scene) -> Space | Refused:
    model = scene.wanted.embedding.model_deployment
    try:
        space = await scene.embedder.space(model)
        check_outputs(scene.wanted, space)
    except InsufficientMemory as error:
        return Refused(Reason.WILL_NEVER_FIT, str(error))
    except ModelNotFound as error:
        return Refused(Reason.UNKNOWN_MODEL, str(error), is_final=False)
    except InvalidRequest as error:
        return Refused(Reason.INVALID_MODEL, str(error))
    except ServingError as error:
        return Refused(Reason.LOADING, f"model {model!r}: {error}", is_final=False)
    return space


def has_of(scene: Scene, layout: Layout, space: Space) -> Built:
    """Return what a collection is built with."""
    making = scene.routing.making_of(scene.routing.read)
    name = making.model or scene.collection.model
    revision = making.revision or (space.revision if name == space.model else "")
    return _built(layout, name, revision)


def wants_of(scene: Scene, space: Space) -> Built:
    """Return what its spec asks for."""
    layout = layout_of(scene.wanted, space.dimensions, space.token_width)
    return _built(layout, space.model, space.revision)


def _built(layout: Layout, model: str, revision: str) -> Built:
    return Built(
        model=model,
        revision=revision,
        dimensions=layout.dimensions,
        distance=DistanceType(layout.distance.value),
        sparse=_sparse(layout),
        multivector=_multivector(layout),
        hnsw=layout.hnsw,
        quantization=layout.quantization,
    )


def _sparse(layout: Layout) -> SparseType:
    if not layout.has_sparse:
        return SparseType.NONE
    return SparseType.BM25 if layout.has_idf else SparseType.MODEL


def _multivector(layout: Layout) -> MultivectorType:
    return MultivectorType.COLBERT if layout.token_width else MultivectorType.NONE


async def _room(scene: Scene, found: Description) -> Room:
    points = await scene.store.count(scene.routing.read, live(None))
    textless = await scene.store.count(
        scene.routing.read,
        live({"must": [{"is_empty": {"key": TEXT}}, {"has_vector": DENSE}]}),
    )
    store = scene.wanted.store
    is_here = store is None or store.type is StoreType.EMBEDDED
    free = None
    if is_here:
        free = (await asyncio.to_thread(shutil.disk_usage, scene.folder)).free
    return Room(
        points=points,
        point_bytes=points * (found.layout.dimensions * 4 + PAYLOAD_BYTES),
        textless=textless,
        stale_documents=await scene.ingestion.cut_otherwise(),
        disk_free=free,
    )
