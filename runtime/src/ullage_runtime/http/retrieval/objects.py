"""The answers of the retrieval endpoints."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Id = int | str


class SparseObject(BaseModel):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class PointObject(BaseModel):
    """A point."""

    id: Id
    payload: dict[str, Any]
    dense: list[float] | None = None
    sparse: SparseObject | None = None
    colbert: Annotated[
        list[list[float]] | None, Field(description="The vector of each token of its text.")
    ] = None


class PointList(BaseModel):
    """Points, in the order of their ids where they were scrolled through."""

    points: list[PointObject]
    next: Annotated[Id | None, Field(description="Where the next page begins; null at the end.")]


class CountObject(BaseModel):
    """How many points there are."""

    count: int


class ChangeObject(BaseModel):
    """A change that is accepted: it is on the disk and will be applied."""

    status: Annotated[
        Literal["accepted", "applied"],
        Field(description="`applied` with `wait=true`: every search from now on sees it."),
    ]
    version: Annotated[int, Field(description="Its place in the order of all changes.")]
    points: Annotated[int, Field(description="Points that it is about.")]


class PartObject(BaseModel):
    """What one list says of a finding."""

    rank: int
    score: float


class HitObject(BaseModel):
    """One finding."""

    id: Id
    score: Annotated[float, Field(description="Of fused lists it is no similarity.")]
    payload: dict[str, Any]
    explain: Annotated[
        dict[str, PartObject] | None,
        Field(description="With `explain`: its rank and score in each list that has it."),
    ] = None


class SearchObject(BaseModel):
    """What was found, the best first."""

    results: list[HitObject]
    mode: Annotated[str, Field(description="How it was searched in the end.")]
    degraded: Annotated[
        list[str], Field(description="What could not be used, though it was asked for.")
    ]
    ranked_by: Annotated[
        Literal["CrossEncoder", "ColBERT"] | None,
        Field(description="What has looked at the findings again."),
    ] = None
    seconds: Annotated[dict[str, float], Field(description="How long each stage took.")]
    cached: Annotated[
        bool, Field(description="Whether it was found before, and nothing is written since.")
    ] = False


class FlatSearchObject(SearchObject):
    """What was found, and in which collection."""

    collection: str


class FlatChangeObject(ChangeObject):
    """A change that is accepted, and of which collection."""

    collection: str


class BatchObject(BaseModel):
    """The answers to several searches, in their order."""

    results: list[SearchObject]


class CollectionObject(BaseModel):
    """A collection as it stands."""

    name: str
    ready: bool
    message: Annotated[str, Field(description="Why it is not ready, or what a reindex would do.")]
    model: str
    aliases: Annotated[list[str], Field(description="Further names that it answers to.")] = []
    dimensions: int | None = None
    points: int | None = None
    documents: int | None = None
    indexed_vectors: int | None = None
    pending_changes: Annotated[
        int | None, Field(description="Accepted changes that no search sees yet.")
    ] = None
    epoch: int | None = None


class CollectionList(BaseModel):
    """Every collection of the pool."""

    collections: list[CollectionObject]


class OperationObject(BaseModel):
    """A call that brought documents, and how far they have come."""

    id: str
    status: Literal["running", "completed"]
    total: int
    done: int
    unchanged: Annotated[int, Field(description="There already, just so.")]
    superseded: Annotated[int, Field(description="Brought again or deleted by a later call.")]
    failed: int
    pending: int
    chunks: Annotated[int, Field(description="Points that the documents became.")]
    errors: Annotated[dict[str, str], Field(description="Why documents failed, by their ids.")]


class DocumentObject(BaseModel):
    """A document as it is kept."""

    id: str
    status: Literal["Pending", "Done", "Failed"]
    chunks: int
    error: str | None
    text: str
    metadata: dict[str, Any]
    original: Annotated[
        str | None, Field(description="Media type of the file that its text was read from.")
    ] = None
