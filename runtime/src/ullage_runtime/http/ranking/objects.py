"""The answers of the ranking endpoints as types, for the OpenAPI document."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Score = Annotated[
    float,
    Field(description="From 0 to 1; the model's own number with raw_scores, or by a cosine."),
]
Index = Annotated[int, Field(description="Place of its document in the request.")]


class RankedDocument(BaseModel):
    """A document, as it was sent."""

    text: str


class RankedResult(BaseModel):
    """One document's score."""

    index: Index
    relevance_score: Score
    document: RankedDocument | None = None


class RankingUsage(BaseModel):
    """Tokens that a request took."""

    prompt_tokens: int
    total_tokens: int


class Ranking(BaseModel):
    """The documents' scores, the best first."""

    id: str
    model: str
    results: list[RankedResult]
    usage: RankingUsage


class RankedText(BaseModel):
    """One text's score, as TEI tells it."""

    index: Index
    score: Score
    text: str | None = None


class ScoredPair(BaseModel):
    """One pair's score."""

    object: Literal["score"]
    index: Annotated[int, Field(description="Place of its pair in the request.")]
    score: Score


class ScoreList(BaseModel):
    """All pairs' scores, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ScoredPair]
    usage: RankingUsage
