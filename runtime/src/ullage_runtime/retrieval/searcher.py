"""Searches of one collection: embedded, found, looked at again; what is away is done without."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from ullage_runtime.core.errors import InvalidRequest, ModelNotFound, ServingError
from ullage_runtime.core.pooled import Output, Role, TokenVectors
from ullage_runtime.retrieval.breakers import Breaker, Breakers, Dependency
from ullage_runtime.retrieval.collection import TEXT, Collection, View
from ullage_runtime.retrieval.embedding import Embedded, Vectors
from ullage_runtime.retrieval.failures import told
from ullage_runtime.retrieval.late import late_query, late_scores, question_of
from ullage_runtime.retrieval.points import checked_dense
from ullage_runtime.retrieval.ranking import Ranker, in_new_order
from ullage_runtime.retrieval.searching import (
    Findings,
    Hit,
    Mode,
    RankedBy,
    Search,
    blended,
    blended_words,
    candidates_of,
    page_of,
    queries_of,
)
from ullage_runtime.retrieval.stores.port import (
    Found,
    Query,
    Sparse,
    StoreTimeout,
    StoreUnavailable,
)
from ullage_runtime.retrieval.words import query_words

log = structlog.stdlib.get_logger(__name__)

SEARCH_SECONDS: Final = 30.0
RERANK_SECONDS: Final = 10.0
"""How long findings may be looked at again; then they are answered as they were found."""

DENSE_AWAY: Final = "dense"
RERANK_AWAY: Final = "rerank"
"""What an answer says that it had to do without."""

_PASSING: Final = frozenset({429, 503, 504, 507})
"""Statuses of errors that a hybrid search answers without its dense half."""


Made = dict[str, Vectors]
"""What a model made of texts."""


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What one search is searched with."""

    dense: tuple[float, ...] | None
    sparse: Sparse | None
    colbert: TokenVectors | None = None
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Findings in their last order."""

    hits: list[Hit]
    by: RankedBy | None = None
    degraded: tuple[str, ...] = ()


class Searcher:
    """Searches one collection."""

    def __init__(
        self,
        collection: Collection,
        ranker: Ranker,
        breakers: Breakers,
        rerank_seconds: float = RERANK_SECONDS,
        search_seconds: float = SEARCH_SECONDS,
    ) -> None:
        self.collection = collection
        self._ranker = ranker
        self._breakers = breakers
        self.rerank_seconds = rerank_seconds
        self.search_seconds = search_seconds

    async def search(self, search: Search, *, tenant: str) -> Findings:
        """Search; what is away is done without where that is possible, and the answer says so."""
        (findings,) = await self.search_all([search], tenant=tenant)
        return findings

    async def search_all(self, searches: Sequence[Search], *, tenant: str) -> list[Findings]:
        """Do several searches, in one request to the model and one to the store."""
        with self.collection.reading() as view:
            return await self._in_view(view, searches, tenant)

    async def _in_view(self, view: View, searches: Sequence[Search], tenant: str) -> list[Findings]:
        began = time.perf_counter()
        vectors = await self._vectors(view, searches, tenant)
        embedded = time.perf_counter()
        asked = [
            queries_of(search, each.dense, each.sparse, view.params)
            for search, each in zip(searches, vectors, strict=True)
        ]
        answers = await self._found(view, asked)
        found = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + self.rerank_seconds
        findings = []
        for search, each, queries, answer in zip(searches, vectors, asked, answers, strict=True):
            started = time.perf_counter()
            hits = candidates_of(search, queries, answer)
            ranked = await self._ranked(view, search, hits, each.colbert, tenant, deadline)
            seconds = {"embed": embedded - began, "store": found - embedded}
            if search.ranked:
                seconds["rerank"] = time.perf_counter() - started
            self.collection.metrics.searched(self.collection.name, seconds)
            if each.dense is not None:
                self.collection.recall.note(view.physical, each.dense)
            findings.append(
                Findings(
                    hits=tuple(page_of(search, ranked.hits)),
                    mode=Mode.SPARSE if each.degraded else search.mode,
                    degraded=(*each.degraded, *ranked.degraded),
                    ranked_by=ranked.by,
                    seconds=seconds,
                )
            )
        return findings

    async def _vectors(self, view: View, searches: Sequence[Search], tenant: str) -> list[_Vectors]:
        """Return what to search with; texts of several searches are embedded together."""
        own = view.has_own_sparse
        needing = [search for search in searches if _needs_model(search, has_own_sparse=own)]
        late = [search for search in searches if _is_late(view, search)]
        wanting = list(dict.fromkeys(text for each in (*needing, *late) for text in each.texts))
        further = [Output.SPARSE] * own + [Output.COLBERT] * bool(late)
        embedded: Made = {}
        failure: ServingError | None = None
        if wanting:
            try:
                lasting = all(each.lasting for each in searches)
                vectors = await self._embed(view, wanting, tenant, further, lasting=lasting)
                embedded = dict(zip(wanting, vectors.texts, strict=True))
            except ServingError as error:
                if error.status not in _PASSING or (own and needing):
                    raise
                if any(search.mode is Mode.DENSE for search in needing):
                    raise
                failure = error
        return [self._vectors_of(view, search, embedded, failure) for search in searches]

    def _vectors_of(
        self,
        view: View,
        search: Search,
        embedded: Made,
        failure: ServingError | None,
    ) -> _Vectors:
        sparse = None
        if search.mode is not Mode.DENSE:
            if not view.layout.has_sparse:
                raise InvalidRequest(
                    f"collection {self.collection.name!r} has no sparse vectors; search with "
                    "mode Dense",
                    param="mode",
                )
            sparse = search.sparse or blended_words(
                [_words(view, t, embedded) for t in search.texts]
            )
        colbert = _tokens(view, search, embedded)
        if not search.is_dense:
            return _Vectors(None, sparse, colbert)
        if search.dense is not None:
            dense = checked_dense(search.dense, view.layout.dimensions, "vector")
            return _Vectors(dense, sparse, colbert)
        if failure is not None:
            return _Vectors(None, sparse, degraded=(DENSE_AWAY,))
        dense = blended([embedded[text].dense for text in search.texts])
        return _Vectors(dense, sparse, colbert)

    async def _embed(
        self,
        view: View,
        texts: Sequence[str],
        tenant: str,
        further: Sequence[Output],
        *,
        lasting: bool,
    ) -> Embedded:
        breaker = self._breakers.of(Dependency.EMBEDDER, view.model)
        _check(breaker)
        try:
            vectors = await self.collection.embed(
                texts,
                Role.QUERY,
                tenant=tenant,
                urgent=True,
                view=view,
                further=further,
                lasting=lasting,
            )
        except ServingError as error:
            if error.status in _PASSING:
                breaker.failed(error)
            raise
        breaker.succeeded()
        return vectors

    async def _found(self, view: View, asked: Sequence[Sequence[Query]]) -> list[list[list[Found]]]:
        """Return each search's answers."""
        collection = self.collection
        breaker = self._breakers.of(Dependency.STORE, collection.name)
        queries = [query for each in asked for query in each]
        with told(collection.name):
            if breaker.left():
                raise StoreUnavailable(f"its store is left alone for a while: {breaker.last}")
            try:
                answers = await self._asked(view, queries)
            except StoreUnavailable as error:
                breaker.failed(error)
                raise
        breaker.succeeded()
        following = iter(answers)
        return [[next(following) for _ in each] for each in asked]

    async def _asked(self, view: View, queries: Sequence[Query]) -> list[list[Found]]:
        store, seconds = self.collection.store, self.search_seconds
        try:
            # A store that has come to a halt does not keep to the time it is given.
            async with asyncio.timeout(seconds):
                return await store.query(view.physical, queries, seconds=seconds)
        except TimeoutError:
            raise StoreTimeout(f"the store did not answer within {seconds:g} s") from None

    async def _ranked(
        self,
        view: View,
        search: Search,
        hits: list[Hit],
        question: TokenVectors | None,
        tenant: str,
        deadline: float,
    ) -> _Ranked:
        """Return findings in the order of the reranker; of their tokens where it is away."""
        settings = self.collection.spec.rerank
        head, rest = hits[: search.ranked], hits[search.ranked :]
        if not head:
            return _Ranked(hits)
        if settings is None:
            return await self._late(view, head, rest, question)
        texts = [text if isinstance(text := hit.payload.get(TEXT), str) else None for hit in head]
        try:
            scores = iter(
                await self._scores(
                    settings.model_deployment,
                    search.wording,
                    [text for text in texts if text is not None],
                    tenant,
                    deadline,
                )
            )
        except (ServingError, TimeoutError) as error:
            log.warning(
                "findings are answered as they were found",
                collection=self.collection.name,
                model=settings.model_deployment,
                error=str(error) or f"not ranked within {self.rerank_seconds:g} s",
            )
            late = await self._late(view, head, rest, question)
            return replace(late, degraded=(RERANK_AWAY,))
        scored = [None if text is None else next(scores) for text in texts]
        return _Ranked(in_new_order(head, scored) + rest, RankedBy.CROSS_ENCODER)

    async def _late(
        self, view: View, head: list[Hit], rest: list[Hit], question: TokenVectors | None
    ) -> _Ranked:
        """Return findings in the order of their tokens, or as they are where that cannot be."""
        if question is None:
            return _Ranked(head + rest, degraded=(RERANK_AWAY,))
        try:
            ((found,),) = await self._found(view, [[late_query(question, head)]])
        except ServingError as error:
            log.warning(
                "findings are answered as they were found",
                collection=self.collection.name,
                error=str(error),
            )
            return _Ranked(head + rest, degraded=(RERANK_AWAY,))
        scored = late_scores(question, head, found)
        return _Ranked(in_new_order(head, scored) + rest, RankedBy.COLBERT)

    async def _scores(
        self, model: str, query: str, texts: Sequence[str], tenant: str, deadline: float
    ) -> tuple[float, ...]:
        if not texts:
            return ()
        breaker = self._breakers.of(Dependency.RERANKER, model)
        _check(breaker)
        try:
            async with asyncio.timeout_at(deadline):
                scores = await self._ranker.rank(model, query, texts, tenant=tenant)
        except (ServingError, TimeoutError) as error:
            if not isinstance(error, ModelNotFound):
                breaker.failed(error)
            raise
        breaker.succeeded()
        return scores


def _words(view: View, text: str, embedded: Made) -> Sparse:
    if not view.has_own_sparse:
        return query_words(text)
    return embedded[text].sparse or Sparse((), ())


def _is_late(view: View, search: Search) -> bool:
    """Whether its findings may be scored by the vectors of tokens."""
    return search.ranked > 0 and view.has_token_vectors


def _tokens(view: View, search: Search, embedded: Made) -> TokenVectors | None:
    """Return the vectors of the question's tokens, and of those of the one before it."""
    if not _is_late(view, search):
        return None
    made = [embedded[text].colbert for text in search.texts[:2] if text in embedded]
    parts = [each for each in made if each is not None and each.values]
    return question_of(parts) if parts else None


def _needs_model(search: Search, *, has_own_sparse: bool) -> bool:
    if search.is_dense and search.dense is None:
        return True
    return has_own_sparse and search.mode is not Mode.DENSE and search.sparse is None


def _check(breaker: Breaker) -> None:
    """Raise what a model failed with last, while it is to be left alone."""
    if left := breaker.left():
        last = breaker.last
        if isinstance(last, ServingError):
            raise type(last)(last.message, last.param, left, last.details)
        raise TimeoutError(str(last))
