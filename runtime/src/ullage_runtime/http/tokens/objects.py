"""The answers of `/tokenize` and `/detokenize` as types, for the OpenAPI document."""

from typing import Annotated

from pydantic import BaseModel, Field


class Piece(BaseModel):
    """A token with its text, as llama-server tells it."""

    id: int
    piece: Annotated[str | list[int], Field(description="Its text, or bytes that are no text.")]


class TokenizeAnswer(BaseModel):
    """A text's tokens."""

    count: int
    max_model_len: Annotated[int, Field(description="Tokens that the model takes at once.")]
    tokens: list[int] | list[Piece]
    token_strs: list[str] | None


class DetokenizeAnswer(BaseModel):
    """The text of tokens, by both names that clients know."""

    prompt: str
    content: str
