"""Points brought from one making to another by the pool's own models."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ullage_api.kinds.vector_collection import MultivectorType, SparseType
from ullage_runtime.core.errors import InvalidRequest, ServingError
from ullage_runtime.core.pooled import Output, Role
from ullage_runtime.retrieval.collection import TEXT, WORDED_AT_ONCE
from ullage_runtime.retrieval.embedding import Embedded, Embedder, Vectors, further_outputs
from ullage_runtime.retrieval.making import Making, Remade
from ullage_runtime.retrieval.stores.port import Point, PointId, Sparse, StoreUnavailable
from ullage_runtime.retrieval.words import document_words

TENANT: Final = "reindex"
"""Under whose name texts are embedded again: the model lets tenants take turns."""
EMBEDDED_AT_ONCE: Final = 16
"""Texts of one request to the model: the longest that somebody who searches waits behind."""
NO_TEXT: Final = "it has no text to make a vector of; write it again with one, or with a vector"


@dataclass(slots=True)
class ModelRemaker:
    """A `Remaker` that embeds texts again, behind whoever searches."""

    embedder: Embedder

    async def remade(self, points: Sequence[Point], source: Making, target: Making) -> Remade:
        """Return points with vectors of another making; raises StoreUnavailable to try again.

        A text that the model does not take fails alone: its point is kept without a vector.
        """
        work = _Work(source, target)
        for point in points:
            work.look_at(point)
        for first in range(0, len(work.texts), EMBEDDED_AT_ONCE):
            ids = list(work.texts)[first : first + EMBEDDED_AT_ONCE]
            await self._embed(work, ids)
        whole = []
        for index, point in enumerate(points):
            if index % WORDED_AT_ONCE == 0:
                await asyncio.sleep(0)
            whole.append(work.finished(point))
        return Remade(tuple(whole), work.failed)

    async def _embed(self, work: "_Work", ids: Sequence[PointId]) -> None:
        try:
            embedded = await self._embedded(work, [work.texts[each] for each in ids])
        except InvalidRequest as error:
            if len(ids) == 1:
                work.failed[ids[0]] = str(error)
                return
            for each in ids:
                await self._embed(work, [each])
            return
        work.made |= dict(zip(ids, embedded.texts, strict=True))

    async def _embedded(self, work: "_Work", texts: Sequence[str]) -> Embedded:
        model = work.target.model
        try:
            return await self.embedder.embed(
                model, texts, Role.DOCUMENT, tenant=TENANT, urgent=False, further=work.further
            )
        except InvalidRequest:
            raise
        except ServingError as error:
            # The model comes and goes; what is written waits for it.
            raise StoreUnavailable(f"model {model!r}: {error}") from error


@dataclass(slots=True)
class _Work:
    """What is to be made of some points."""

    source: Making
    target: Making
    texts: dict[PointId, str] = field(default_factory=dict)
    """What has to be embedded."""
    made: dict[PointId, Vectors] = field(default_factory=dict)
    failed: dict[PointId, str] = field(default_factory=dict)

    @property
    def keeps_dense(self) -> bool:
        return self.source.embeds_like(self.target)

    @property
    def keeps_sparse(self) -> bool:
        same = self.source.sparse is self.target.sparse
        return same and (self.target.sparse is not SparseType.MODEL or self.keeps_dense)

    @property
    def keeps_colbert(self) -> bool:
        return self.source.multivector is self.target.multivector and self.keeps_dense

    @property
    def wants_colbert(self) -> bool:
        return self.target.multivector is MultivectorType.COLBERT

    @property
    def further(self) -> tuple[Output, ...]:
        """What is wanted of the model beside dense vectors."""
        return further_outputs(
            sparse=self.target.sparse is SparseType.MODEL, colbert=self.wants_colbert
        )

    def look_at(self, point: Point) -> None:
        """Note what a point needs."""
        if point.is_tombstone:
            return
        text = point.payload.get(TEXT)
        has_text = isinstance(text, str)
        # One that has a text and no vector could not be embedded before.
        wants_dense = not self.keeps_dense and (has_text or point.dense is not None)
        wants_sparse = self.target.sparse is SparseType.MODEL and not self.keeps_sparse
        wants_colbert = self.wants_colbert and not self.keeps_colbert
        if isinstance(text, str) and (wants_dense or wants_sparse or wants_colbert):
            self.texts[point.id] = text
        elif wants_dense:
            self.failed[point.id] = NO_TEXT

    def finished(self, point: Point) -> Point:
        """Return a point as it is to be."""
        if point.is_tombstone:
            return point
        made = self.made.get(point.id)
        dense, sparse = (None, None) if made is None else (made.dense, made.sparse)
        if self.keeps_dense:
            dense = point.dense
        colbert = None if made is None or not self.wants_colbert else made.colbert
        if self.keeps_colbert:
            colbert = point.colbert
        return replace(point, dense=dense, sparse=self._sparse(point, sparse), colbert=colbert)

    def _sparse(self, point: Point, own: Sparse | None) -> Sparse | None:
        wanted = self.target.sparse
        if wanted is SparseType.NONE:
            return None
        if self.keeps_sparse and point.sparse is not None:
            return point.sparse
        if wanted is SparseType.MODEL:
            return own
        text = point.payload.get(TEXT)
        return document_words(text) if isinstance(text, str) else None
