"""A collection as a reindex job works on it."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_runtime.retrieval.collection import Collection
from ullage_runtime.retrieval.embedding import Embedder
from ullage_runtime.retrieval.held import Held
from ullage_runtime.retrieval.ingest.ingestion import Ingestion
from ullage_runtime.retrieval.log.changes import ChangeLog
from ullage_runtime.retrieval.log.file import Routing
from ullage_runtime.retrieval.stores.port import Store


@dataclass(frozen=True, slots=True)
class Scene:
    """An open collection and what is around it."""

    held: Held
    collection: Collection
    ingestion: Ingestion
    embedder: Embedder
    folder: pathlib.Path
    now: Callable[[], float]

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.collection.name

    @property
    def wanted(self) -> VectorCollectionSpec:
        """The collection's spec."""
        return self.held.desired.spec

    @property
    def store(self) -> Store:
        """Where its vectors are."""
        return self.collection.store

    @property
    def changes(self) -> ChangeLog:
        """Its log."""
        return self.collection.changes

    @property
    def routing(self) -> Routing:
        """Where its reads and writes go."""
        return self.changes.routing
