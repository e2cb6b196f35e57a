"""The bodies of the retrieval endpoints."""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    WrapValidator,
)

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.fields import Text, named
from ullage_runtime.retrieval.collection import Collection, NewPoint
from ullage_runtime.retrieval.points import (
    MAX_POINTS,
    MAX_SPARSE,
    checked_dense,
    checked_filter,
    checked_id,
    checked_ids,
    checked_payload,
    checked_sparse,
    checked_tokens,
)
from ullage_runtime.retrieval.ranking import ranked_of
from ullage_runtime.retrieval.searching import MAX_CANDIDATES, RRF_K, Mode, Search
from ullage_runtime.retrieval.stores.port import Fusion, Layout

MAX_DIMENSIONS: Final = 1 << 16
MAX_TEXT: Final = 64 << 20
MAX_DOCUMENTS: Final = 1000
MAX_QUERY: Final = 1 << 16
MAX_SEARCHES: Final = 32
"""Searches of one request."""
MAX_EXAMPLES: Final = 100

_ID = WithJsonSchema(
    {
        "anyOf": [
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 1 << 64},
            {"type": "string", "format": "uuid"},
        ]
    }
)
_NUMBERS: Final = {
    "type": "array",
    "items": {"type": "number"},
    "minItems": 1,
    "maxItems": MAX_DIMENSIONS,
}


def within(least: int, most: int) -> WrapValidator:
    """Return what names both ends of a range to whoever is outside of it."""
    return named(f"an integer from {least} to {most}")


Limit = Annotated[int, Field(ge=1, le=MAX_CANDIDATES), within(1, MAX_CANDIDATES)]
"""How many findings are wanted."""
Offset = Annotated[int, Field(ge=0, lt=MAX_CANDIDATES), within(0, MAX_CANDIDATES - 1)]
"""How many findings are passed over."""
GroupSize = Annotated[int, Field(ge=1, le=100), within(1, 100)]
PointKey = Annotated[Any, _ID]
"""An unsigned number or a UUID."""
Ids = Annotated[list[PointKey], Field(min_length=1, max_length=MAX_POINTS)]
Where = Annotated[
    dict[str, Any],
    AfterValidator(checked_filter),
    Field(description="A filter in Qdrant's language."),
]
Name = Annotated[str, Field(min_length=1, max_length=128)]


class Body(BaseModel):
    """A JSON object whose every member is known: a misspelt one would do nothing, unnoticed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class SparseBody(Body):
    """A sparse vector."""

    indices: Annotated[list[int], Field(max_length=MAX_SPARSE)]
    values: Annotated[list[float], Field(max_length=MAX_SPARSE)]


class VectorsBody(Body):
    """A point's vectors by their names."""

    dense: Annotated[list[float] | None, WithJsonSchema(_NUMBERS)] = None
    sparse: SparseBody | None = None
    colbert: Annotated[list[list[float]], Field(max_length=MAX_DIMENSIONS)] | None = None
    """A vector for each token of the text."""


class PointBody(Body):
    """A point to be written."""

    id: PointKey
    text: Annotated[Text, Field(max_length=MAX_TEXT)] | None = None
    """Becomes `payload.text`; without a vector the collection's model embeds it."""
    vector: list[float] | VectorsBody | None = None
    """The dense vector, or an object with `dense`, `sparse` and `colbert`."""
    payload: dict[str, Any] = Field(default={})

    def point(self, index: int, layout: Layout) -> NewPoint:
        """Return the point; raises InvalidRequest or DimensionMismatch."""
        where = f"points[{index}]"
        given = self.vector
        vectors = VectorsBody(dense=given) if isinstance(given, list) else given or VectorsBody()
        dense, sparse, colbert = vectors.dense, vectors.sparse, vectors.colbert
        if self.text is None and dense is None and sparse is None:
            raise InvalidRequest(f"{where} needs a text or a vector", param=where)
        if sparse is not None and not layout.has_sparse:
            raise InvalidRequest("the collection has no sparse vectors", param=f"{where}.vector")
        if colbert is not None and not layout.token_width:
            raise InvalidRequest(
                "the collection has no vectors of tokens", param=f"{where}.vector.colbert"
            )
        return NewPoint(
            id=checked_id(self.id, f"{where}.id"),
            payload=checked_payload(self.payload, f"{where}.payload"),
            text=self.text,
            dense=None
            if dense is None
            else checked_dense(dense, layout.dimensions, f"{where}.vector"),
            sparse=None
            if sparse is None
            else checked_sparse(sparse.indices, sparse.values, f"{where}.vector.sparse"),
            colbert=None
            if colbert is None
            else checked_tokens(colbert, layout.token_width, f"{where}.vector.colbert"),
        )


class UpsertBody(Body):
    """Points to be written over what there is."""

    points: Annotated[list[PointBody], Field(min_length=1, max_length=MAX_POINTS)]


class RetrieveBody(Body):
    """Points that are wanted."""

    ids: Ids
    with_vectors: bool = False


class ScrollBody(Body):
    """A page of points."""

    limit: Annotated[int, Field(ge=1, le=MAX_POINTS), within(1, MAX_POINTS)] = 100
    after: PointKey | None = None
    """`next` of the page before."""
    filter: Where | None = None
    with_vectors: bool = False


class CountBody(Body):
    """Points to be counted."""

    filter: Where | None = None


class Chosen(Body):
    """Points by their ids or by a filter: exactly one of them."""

    ids: Ids | None = None
    filter: Where | None = None

    def check(self) -> None:
        """Raise InvalidRequest unless it is one of them."""
        if (self.ids is None) == (not self.filter):
            raise InvalidRequest("give either ids or a filter that is not empty", param="ids")


class DeleteBody(Chosen):
    """Points that are to be no more."""


class PayloadBody(Chosen):
    """A change of points' payloads."""

    payload: dict[str, Any]
    replace: bool = False
    """Whether it takes the whole payload's place; otherwise its fields are set."""


class FusionBody(Body):
    """How dense and sparse findings become one list."""

    type: Literal["RRF", "DBSF"] = "DBSF"
    k: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """RRF's constant; 60 by default."""


class SearchBody(Body):
    """What is looked for."""

    query: Annotated[Text, Field(min_length=1, max_length=MAX_QUERY)] | None = None
    vector: Annotated[
        list[float] | None, WithJsonSchema({"anyOf": [_NUMBERS, {"type": "null"}]})
    ] = None
    """A dense vector to search with instead of the query's own."""
    mode: Literal["Dense", "Sparse", "Hybrid"] | None = None
    """Hybrid where the collection has sparse vectors, else Dense."""
    limit: Limit = 10
    offset: Offset = 0
    filter: Where | None = None
    score_threshold: float | None = None
    """Least score of dense findings before they are fused; 0 is none."""
    fusion: FusionBody | None = None
    group_by: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Payload field of whose values each is found but once, such as `document`."""
    group_size: GroupSize = 1
    rerank: bool | None = None
    """Whether findings are looked at again, by the collection's reranker or by the vectors of their
    tokens; where it has either, by default."""
    exact: bool = False
    """Whether every vector is looked at, without the index."""
    explain: bool = False
    """Whether each finding says its rank and score in each list."""

    def search(self, collection: Collection) -> Search:
        """Return the search; raises InvalidRequest."""
        mode = Mode(self.mode or ("Hybrid" if collection.layout.has_sparse else "Dense"))
        if self.query is None and (mode is not Mode.DENSE or self.vector is None):
            raise InvalidRequest(
                "query is needed; a vector alone can be searched with mode Dense", param="query"
            )
        if self.offset + self.limit > MAX_CANDIDATES:
            raise InvalidRequest(
                f"offset + limit is {self.offset + self.limit}; a search pages through "
                f"{MAX_CANDIDATES} findings: narrow it with a filter",
                param="offset",
            )
        fusion = self.fusion or FusionBody()
        return Search(
            text=self.query,
            dense=None if self.vector is None else tuple(self.vector),
            mode=mode,
            limit=self.limit,
            offset=self.offset,
            filter=self.filter,
            threshold=self.score_threshold,
            fusion=Fusion(fusion.type),
            rrf_k=fusion.k or RRF_K,
            group_by=self.group_by,
            group_size=self.group_size,
            exact=self.exact,
            explain=self.explain,
            ranked=self._ranked(collection),
        )

    def _ranked(self, collection: Collection) -> int:
        """Return how many findings are looked at again; raises InvalidRequest."""
        settings = collection.spec.rerank
        has_any = settings is not None or collection.has_token_vectors
        if self.rerank and not has_any:
            raise InvalidRequest(
                f"collection {collection.name!r} has no reranker; name one in its spec.rerank, or "
                "set its spec.multivector, or leave rerank out",
                param="rerank",
            )
        if self.rerank and self.query is None:
            raise InvalidRequest("rerank needs a query: a vector has no words", param="rerank")
        if self.rerank is False or not has_any or self.query is None:
            return 0
        return ranked_of(settings, self.limit)


class BatchBody(Body):
    """Several searches of one collection."""

    searches: Annotated[list[SearchBody], Field(min_length=1, max_length=MAX_SEARCHES)]


class RecommendBody(Body):
    """Points that others are to be like, or unlike."""

    positive: Annotated[list[PointKey], Field(min_length=1, max_length=MAX_EXAMPLES)]
    """Ids of points that findings are to be like; they are not found themselves."""
    negative: Annotated[list[PointKey], Field(max_length=MAX_EXAMPLES)] = Field(default=[])
    """Ids of points that they are to be unlike, likewise."""
    limit: Limit = 10
    offset: Offset = 0
    filter: Where | None = None
    score_threshold: float | None = None
    group_by: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    group_size: GroupSize = 1
    exact: bool = False

    def search(self, collection: Collection, target: list[float]) -> Search:
        """Return the search for what is near a vector, without the examples."""
        examples = [*self.positive, *self.negative]
        others: list[Any] = [{"must_not": [{"has_id": checked_ids(examples, "positive")}]}]
        if self.filter:
            others.append(self.filter)
        body = SearchBody(
            vector=target,
            mode="Dense",
            filter={"must": others},
            **self.model_dump(
                include={"limit", "offset", "score_threshold", "group_by", "group_size", "exact"}
            ),
        )
        return body.search(collection)


class Flat(Body):
    """Which collection is meant, by its name or an operation of it; else the default one."""

    collection: Name | None = None
    operation_uuid: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Operation that brought documents: its collection is meant."""


class FlatSearchBody(SearchBody, Flat):
    """A search, and the collection that it is meant for."""

    search_type: Literal["semantic", "hybrid"] | None = None
    """What `mode` calls Dense and Hybrid."""

    def with_mode(self, default: Literal["Dense", "Hybrid"]) -> SearchBody:
        """Return the search in the mode that is asked for; raises InvalidRequest."""
        named: Literal["Dense", "Hybrid"] | None = None
        if self.search_type is not None:
            named = "Dense" if self.search_type == "semantic" else "Hybrid"
        if self.mode is not None and named not in (None, self.mode):
            raise InvalidRequest(
                f"search_type {self.search_type} and mode {self.mode} contradict each other; "
                "send one of them",
                param="search_type",
            )
        return self.model_copy(update={"mode": self.mode or named or default})


class FlatUpsertBody(UpsertBody, Flat):
    """Points, and the collection that they are meant for."""


class DocumentBody(Body):
    """A document to be indexed."""

    id: Annotated[Text, Field(min_length=1, max_length=512)]
    text: Annotated[Text, Field(max_length=MAX_TEXT)]
    metadata: dict[str, Any] = Field(default={})
    """Becomes part of every chunk's payload."""


class DocumentsBody(Body):
    """Documents to be indexed; one of an id that is there already takes its place."""

    documents: Annotated[list[DocumentBody], Field(min_length=1, max_length=MAX_DOCUMENTS)]
