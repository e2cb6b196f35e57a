"""One live collection: what is written to it, and read by ids and filters."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from ullage_api.kinds.vector_collection import SparseType, VectorCollectionSpec
from ullage_runtime.core.errors import DimensionMismatch, InvalidRequest, RequestTimeout
from ullage_runtime.core.pooled import Output, Role, TokenVectors
from ullage_runtime.retrieval.embedding import (
    Embedded,
    Embedder,
    Space,
    Vectors,
    further_outputs,
)
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.log.changes import ChangeLog, live
from ullage_runtime.retrieval.making import Making
from ullage_runtime.retrieval.metrics import RetrievalMetrics
from ullage_runtime.retrieval.points import checked_payload
from ullage_runtime.retrieval.profiles import settings_of
from ullage_runtime.retrieval.recall import RecallProbe
from ullage_runtime.retrieval.stores.port import (
    LARGEST_POINT,
    Filter,
    Layout,
    Point,
    PointId,
    Sparse,
    Store,
    StoreTimeout,
)
from ullage_runtime.retrieval.words import document_words

TEXT: Final = "text"
"""Payload field that holds a point's text."""
WORDED_AT_ONCE: Final = 32
"""Texts taken apart before others get their turn."""
WAIT_SECONDS: Final = 60.0
"""How long a write waits to be seen by searches, for those who want that."""
MAX_FOUND_BY_FILTER: Final = 100_000
"""Points that one request may change by a filter."""


@dataclass(frozen=True, slots=True)
class NewPoint:
    """A point to be written: its text is embedded where it brings no vector."""

    id: PointId
    payload: Mapping[str, Any]
    text: str | None = None
    dense: tuple[float, ...] | None = None
    sparse: Sparse | None = None
    colbert: TokenVectors | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """An accepted mutation."""

    version: int
    is_applied: bool
    count: int
    """Points that it is about."""


@dataclass(frozen=True, slots=True)
class View:
    """One physical collection, and all that questions and writes need to fit it.

    A search takes one view for all of its steps, so that it never asks one model's index with
    another model's vector.
    """

    physical: str
    spec: VectorCollectionSpec
    """What is wanted, with the model and the sparse vectors that this one is made with."""
    layout: Layout
    making: Making

    @property
    def model(self) -> str:
        """Name of the model that embeds."""
        return self.spec.embedding.model_deployment

    @property
    def has_own_sparse(self) -> bool:
        """Whether sparse vectors are the model's own, not BM25's."""
        return self.spec.sparse is SparseType.MODEL

    @property
    def params(self) -> Mapping[str, Any]:
        """How thoroughly dense vectors are searched."""
        return settings_of(self.spec, self.layout.dimensions).search

    @property
    def has_token_vectors(self) -> bool:
        """Whether each token of its texts has a vector."""
        return self.layout.token_width > 0

    @property
    def further(self) -> tuple[Output, ...]:
        """What is kept of a text beside its dense vector, of what the model says of it."""
        return further_outputs(sparse=self.has_own_sparse, colbert=self.has_token_vectors)


class Collection:
    """A collection that is read and written; see `Collections` for how it comes to be.

    Which of its views is read, the log's routing says.
    """

    def __init__(
        self,
        name: str,
        view: View,
        store: Store,
        changes: ChangeLog,
        embedder: Embedder,
        metrics: RetrievalMetrics,
    ) -> None:
        self.name = name
        self.store = store
        self.changes = changes
        self.embedder = embedder
        self.recall = RecallProbe()
        self.wait_seconds = WAIT_SECONDS
        self.metrics = metrics
        self._views = {view.physical: view}
        self._users: Counter[str] = Counter()

    @property
    def view(self) -> View:
        """What is read now."""
        return self._views[self.changes.routing.read]

    def add_view(self, view: View) -> None:
        """Have another physical collection that may be read some time."""
        self._views[view.physical] = view

    def remove_view(self, physical: str) -> None:
        """Forget a physical collection that is not read any more."""
        if physical != self.changes.routing.read:
            self._views.pop(physical, None)

    @contextmanager
    def reading(self) -> Iterator[View]:
        """Give what is read now; `readers` tells of it meanwhile."""
        view = self.view
        self._users[view.physical] += 1
        try:
            yield view
        finally:
            self._users[view.physical] -= 1

    def readers(self, physical: str) -> int:
        """Return how many still read a physical collection."""
        return self._users[physical]

    @property
    def spec(self) -> VectorCollectionSpec:
        """What is wanted, with the model and the sparse vectors that it has."""
        return self.view.spec

    @property
    def layout(self) -> Layout:
        """How it is laid out."""
        return self.view.layout

    @property
    def params(self) -> Mapping[str, Any]:
        """How thoroughly dense vectors are searched."""
        return self.view.params

    @property
    def model(self) -> str:
        """Name of the model that embeds."""
        return self.view.model

    @property
    def has_token_vectors(self) -> bool:
        """Whether each token of its texts has a vector."""
        return self.view.has_token_vectors

    @property
    def physical(self) -> str:
        """Name of what is read in the store."""
        return self.changes.routing.read

    async def upsert(
        self, points: Sequence[NewPoint], *, wait: bool, tenant: str, urgent: bool = True
    ) -> Change:
        """Write points, embedding the texts of those that bring no vector."""
        view = self.view
        whole = await self._whole(view, points, tenant=tenant, urgent=urgent)
        with told(self.name):
            version = await self.changes.upsert(whole, view.making)
        return await self._change(version, len(whole), wait=wait)

    async def delete(self, ids: Sequence[PointId], *, wait: bool) -> Change:
        """Have points be no more, whether they exist or not."""
        with told(self.name):
            version = await self.changes.delete(ids)
        return await self._change(version, len(ids), wait=wait)

    async def delete_where(self, where: Filter, *, wait: bool) -> Change:
        """Have all points be no more that a filter finds."""
        with told(self.name):
            await self._check_few(where)
            version, count = await self.changes.delete_where(where)
        return await self._change(version, count, wait=wait)

    async def set_payload(
        self,
        changes: Mapping[str, Any],
        *,
        ids: Sequence[PointId] | None,
        where: Filter | None,
        replace_all: bool,
        wait: bool,
    ) -> Change:
        """Set fields of the payloads of some points, or give them another payload."""
        checked = checked_payload(changes, "payload")
        with told(self.name):
            if ids is not None:
                version, count = await self.changes.set_payload(ids, checked, replace=replace_all)
            else:
                await self._check_few(where or {})
                version, count = await self.changes.set_payload_where(
                    where or {}, checked, replace=replace_all
                )
        return await self._change(version, count, wait=wait)

    async def retrieve(self, ids: Sequence[PointId], *, vectors: bool) -> list[Point]:
        """Return those of the points that exist."""
        with told(self.name), self.reading() as view:
            found = await self.store.retrieve(view.physical, ids, vectors=vectors)
        return [point for point in found if not point.is_tombstone]

    async def scroll(
        self, *, after: PointId | None, limit: int, where: Filter | None, vectors: bool
    ) -> tuple[list[Point], PointId | None]:
        """Return a page in the order of ids, and where the next one begins."""
        with told(self.name), self.reading() as view:
            return await self.store.scroll(
                view.physical, after=after, limit=limit, where=live(where), vectors=vectors
            )

    async def count(self, where: Filter | None = None) -> int:
        """Count points exactly."""
        with told(self.name), self.reading() as view:
            return await self.store.count(view.physical, live(where))

    async def probe_recall(self) -> None:
        """Find out how much of what is nearest a search finds, by what was asked of late."""
        with told(self.name), self.reading() as view:
            await self.recall.look(self.store, view.physical, view.params)

    async def _whole(
        self, view: View, points: Sequence[NewPoint], *, tenant: str, urgent: bool
    ) -> list[Point]:
        wanting = [p.text for p in points if p.text is not None and _needs_model(view, p)]
        made: Iterator[Vectors] = iter(())
        if wanting:
            embedded = await self.embed(
                wanting,
                Role.DOCUMENT,
                tenant=tenant,
                urgent=urgent,
                view=view,
                further=view.further,
            )
            made = iter(embedded.texts)
        whole = []
        for index, point in enumerate(points):
            if index % WORDED_AT_ONCE == 0:
                await asyncio.sleep(0)
            own = next(made) if point.text is not None and _needs_model(view, point) else None
            whole.append(_point(view, point, own))
        return whole

    async def embed(
        self,
        texts: Sequence[str],
        role: Role,
        *,
        tenant: str,
        urgent: bool,
        view: View | None = None,
        further: Sequence[Output] = (),
        lasting: bool = True,
    ) -> Embedded:
        """Return the texts' vectors, for what is read now or another view.

        Raises ServingError, DimensionMismatch among them.
        """
        view = view or self.view
        embedded = await self.embedder.embed(
            view.model,
            texts,
            role,
            tenant=tenant,
            urgent=urgent,
            further=further,
            lasting=lasting,
        )
        self._check_space(view, embedded.space)
        return embedded

    def _check_space(self, view: View, space: Space) -> None:
        if space.dimensions != view.layout.dimensions:
            raise DimensionMismatch(
                f"model {space.model!r} gives {space.dimensions} dimensions; collection "
                f"{self.name!r} was made with {view.layout.dimensions} and must be reindexed",
                details={"expected": view.layout.dimensions, "got": space.dimensions},
            )

    async def _check_few(self, where: Filter) -> None:
        count = await self.store.count(self.physical, live(where))
        if count > MAX_FOUND_BY_FILTER:
            raise InvalidRequest(
                f"the filter finds {count} points; one request may change {MAX_FOUND_BY_FILTER}: "
                "narrow it, for instance by ranges of a field",
                param="filter",
            )

    async def _change(self, version: int, count: int, *, wait: bool) -> Change:
        if wait:
            with told(self.name):
                try:
                    await self.changes.wait(version, self.wait_seconds)
                except StoreTimeout as error:
                    known = {"status": "accepted", "version": version, "points": count}
                    message = f"collection {self.name!r}: {error}"
                    raise RequestTimeout(message, details=known) from error
        return Change(version, wait, count)

    def with_spec(self, spec: VectorCollectionSpec) -> None:
        """Take on settings that act at once: those of queries."""
        self._views = {
            physical: replace(view, spec=replace_embedding(spec, view.spec))
            for physical, view in self._views.items()
        }


def _needs_model(view: View, point: NewPoint) -> bool:
    return (
        point.dense is None
        or (view.has_own_sparse and point.sparse is None)
        or (view.has_token_vectors and point.colbert is None)
    )


def _point(view: View, point: NewPoint, own: Vectors | None) -> Point:
    """Return a point as it is written, with what the model says where it brings nothing."""
    payload, sparse, colbert = dict(point.payload), point.sparse, point.colbert
    dense = own.dense if own is not None and point.dense is None else point.dense
    if point.text is not None:
        payload[TEXT] = point.text
        if sparse is None and view.layout.has_sparse and not view.has_own_sparse:
            sparse = document_words(point.text)
    if own is not None:
        sparse = own.sparse if sparse is None else sparse
        colbert = own.colbert if colbert is None else colbert
    whole = Point(point.id, payload, dense, sparse, colbert)
    if whole.numbers > LARGEST_POINT:
        raise InvalidRequest(
            f"the vectors of point {point.id!r} have {whole.numbers} numbers together; a point "
            f"may have {LARGEST_POINT}: each token of its text has a vector, so cut the text"
        )
    return whole


def replace_embedding(
    wanted: VectorCollectionSpec, kept: VectorCollectionSpec
) -> VectorCollectionSpec:
    """Return a spec with what another one's vectors are made by: no two can be compared."""
    return wanted.model_copy(update={"embedding": kept.embedding, "sparse": kept.sparse})
