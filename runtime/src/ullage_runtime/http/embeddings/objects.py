"""The answer of `POST /v1/embeddings` as a type, for the OpenAPI document."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class EmbeddingPromptDetails(BaseModel):
    """What became of a request's tokens."""

    cached_tokens: Annotated[
        int, Field(description="Those of texts whose vectors were there already.")
    ]


class EmbeddingUsage(BaseModel):
    """Tokens that a request took."""

    prompt_tokens: int
    total_tokens: int
    prompt_tokens_details: EmbeddingPromptDetails


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: Annotated[int, Field(description="Place of its text among the inputs.")]
    embedding: Annotated[
        list[float] | str,
        Field(description="Of length 1: numbers, or their 32-bit little-endian bytes in base64."),
    ]


class EmbeddingList(BaseModel):
    """All texts' vectors, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
