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


class SparseEmbedding(BaseModel):
    """The weights of a text's tokens."""

    indices: Annotated[list[int], Field(description="Different tokens' ids, ascending.")]
    values: Annotated[list[float], Field(description="The weight of each, above 0.")]


class Embedding(BaseModel):
    """One text's vector."""

    object: Literal["embedding"]
    index: Annotated[int, Field(description="Place of its text among the inputs.")]
    embedding: Annotated[
        list[float] | str | SparseEmbedding | list[list[float]] | list[str],
        Field(
            description=(
                "Of length 1: numbers, or their 32-bit little-endian bytes in base64. With "
                "embedding_type sparse, weights; with colbert, such a vector for each token."
            )
        ),
    ]
    sparse_embedding: Annotated[
        SparseEmbedding | None, Field(description="With return_sparse.")
    ] = None
    colbert_vecs: Annotated[
        list[list[float]] | list[str] | None,
        Field(description="With return_colbert_vecs: a vector for each token but the first."),
    ] = None


class EmbeddingList(BaseModel):
    """All texts' vectors, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
