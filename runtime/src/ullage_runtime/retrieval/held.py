"""A wanted collection on this pod: how far it has come, and what its report says."""

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Final

import structlog

from ullage_api.wire.pod_report import CollectionState, ReportedCollection
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_runtime.core.errors import ServingError
from ullage_runtime.retrieval.aliases import aligned
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.ingest.ingestion import Ingestion
from ullage_runtime.retrieval.searcher import Searcher
from ullage_runtime.retrieval.stores.port import StoreError

log = structlog.stdlib.get_logger(__name__)

LOOKS_OF_A_PROBE: Final = 6
"""Every so many looks one question is asked again, exactly: that costs a scan."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a collection had when it was last looked at."""

    points: int
    documents: int
    indexed_vectors: int
    is_indexed: bool
    pending_changes: int
    deferred_points: int | None
    recall_percent: int | None


@dataclass(slots=True)
class Held:
    """One wanted collection, and how far it has come."""

    desired: DesiredCollection
    collection: Collection | None = None
    ingestion: Ingestion | None = None
    searcher: Searcher | None = None
    state: CollectionState = CollectionState.OPENING
    problem: str = "it is being opened"
    """Why it is not ready."""
    differences: list[str] = field(default_factory=list)
    """What only a reindex would bring about; meanwhile it serves what it has."""
    alias_problem: str = ""
    """Why its store does not have one of its aliases for it."""
    sample: Sample | None = None
    looks: int = 0
    task: asyncio.Task[None] | None = None
    is_open: bool = False
    """Whether its opening has ended: jobs of it have been taken up."""

    @property
    def model(self) -> str:
        """Name of the model that embeds, or will."""
        made = self.collection
        return self.desired.spec.embedding.model_deployment if made is None else made.model

    @property
    def models(self) -> frozenset[str]:
        """Names of the models that embed what is read and what is written besides."""
        made = self.collection
        if made is None:
            return frozenset({self.model})
        routing = made.changes.routing
        others = {str(each.get("name")) for each in routing.others.values()}
        return frozenset({made.model, *others})

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names it answers to."""
        return tuple(self.desired.spec.aliases or ())

    async def align(self) -> None:
        """Have its aliases in its store; one that somebody else has there is said, no more."""
        if self.collection is None:
            return
        self.alias_problem = ""
        try:
            await aligned(self.collection.store, self.collection.changes, self.aliases)
        except StoreError as error:
            self.alias_problem = str(error)
            log.warning(
                "an alias is not in the store", collection=self.desired.name, error=str(error)
            )

    async def look(self) -> None:
        """Count what there is; a store that does not answer is what the report then says."""
        collection, ingestion = self.collection, self.ingestion
        if collection is None or ingestion is None:
            return
        try:
            count = await collection.count()
            documents = await ingestion.count()
            found = await collection.store.describe(collection.physical)
            if found is not None and found.is_put_off:
                await collection.store.build(collection.physical)
        except (ServingError, StoreError) as error:
            self.state, self.problem = CollectionState.FAILED, str(error)
            return
        if found is None:
            self.state = CollectionState.FAILED
            self.problem = f"the store has no {collection.physical!r} any more"
            return
        self.state, self.problem = CollectionState.READY, ""
        if self.alias_problem:
            await self.align()
        if self.looks % LOOKS_OF_A_PROBE == 0:
            await self._probe(collection)
        self.looks += 1
        self.sample = Sample(
            points=count,
            documents=documents,
            indexed_vectors=found.indexed_vectors,
            is_indexed=found.is_optimised,
            pending_changes=collection.changes.behind,
            deferred_points=found.deferred_points,
            recall_percent=collection.recall.percent,
        )

    async def _probe(self, collection: Collection) -> None:
        try:
            await collection.probe_recall()
        except ServingError as error:
            log.info("recall was not measured", collection=collection.name, error=str(error))

    def reported(self) -> ReportedCollection:
        """Return its entry in the pod's report."""
        desired, collection, sample = self.desired, self.collection, self.sample
        entry = ReportedCollection(
            name=desired.name,
            uid=desired.uid,
            generation=desired.generation,
            state=self.state,
            message=self.problem,
        )
        if collection is None:
            return entry
        routing = collection.changes.routing
        return entry.model_copy(
            update={
                "differences": tuple(self.differences),
                "aliases": self.aliases,
                "alias_problem": self.alias_problem,
                "physical": routing.read,
                "epoch": routing.epoch,
                "model": collection.model,
                "model_revision": routing.model.get("revision"),
                "dimensions": collection.layout.dimensions,
                **(asdict(sample) if sample else {}),
            }
        )
