"""The bodies of the ranking endpoints."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema, field_validator

from ullage_runtime.http.embeddings.schema import truncation
from ullage_runtime.http.openai.fields import Request, Text, encodable
from ullage_runtime.http.openai.schema import Name

MAX_DOCUMENTS: Final = 2048

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "rank_fields": (None, ["text"]),
    "max_chunks_per_doc": (None,),
    "truncate_prompt_tokens": (None,),
    "truncation_direction": (None, "Right", "right"),
    "overlap_tokens": (None,),
    "instruction": (None, ""),
}
"""Parameters that are not supported, each with the values that change nothing."""

_DOCUMENT: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
        },
    ]
}
_DOCUMENTS: Final = WithJsonSchema(
    {"type": "array", "items": _DOCUMENT, "minItems": 1, "maxItems": MAX_DOCUMENTS}
)
_TEXT_LIST: Final = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": MAX_DOCUMENTS,
}
_TEXTS: Final = WithJsonSchema(_TEXT_LIST)
_TEXT_OR_TEXTS: Final = WithJsonSchema({"anyOf": [{"type": "string"}, _TEXT_LIST]})
_TRUNCATE: Final = WithJsonSchema(
    {"anyOf": [{"type": "boolean"}, {"enum": ["NONE", "END"]}, {"type": "null"}]}
)

Query = Annotated[Text, Field(min_length=1)]


class RankingRequest(Request):
    """What all of them share."""

    truncate: Annotated[Any, _TRUNCATE] = None
    """Whether a document that is too long loses its end; otherwise it is refused."""
    raw_scores: bool | None = None
    """Whether scores are the model's own numbers instead of numbers from 0 to 1."""

    @field_validator("truncate")
    @classmethod
    def _truncation(cls, value: object) -> bool:
        return truncation(value)


class RerankBody(RankingRequest):
    """The body of `POST /v1/rerank` and `/v2/rerank`, as Cohere's and Jina's clients send it."""

    model: Name
    query: Query
    documents: Annotated[Any, _DOCUMENTS]
    """Texts, or objects with a `text`."""
    top_n: Annotated[int | None, Field(ge=1, le=1 << 31)] = None
    """How many of the best are answered; all by default."""
    return_documents: bool | None = None
    """Whether each result has its document."""
    max_tokens_per_doc: Annotated[int | None, Field(ge=1, le=1 << 31)] = None
    """Tokens of each document that are looked at; its rest is left out."""

    @field_validator("documents")
    @classmethod
    def _texts(cls, value: object) -> tuple[str, ...]:
        return tuple(_document(index, each) for index, each in enumerate(_some(value)))


class TextsBody(RankingRequest):
    """The body of TEI's `POST /rerank`."""

    model: Name | None = None
    """Needed where the pool has several Rerank models."""
    query: Query
    texts: Annotated[Any, _TEXTS]
    return_text: bool | None = None
    """Whether each result has its text."""

    @field_validator("texts")
    @classmethod
    def _texts(cls, value: object) -> tuple[str, ...]:
        return tuple(_text(index, each) for index, each in enumerate(_some(value)))


class ScoreBody(RankingRequest):
    """The body of vLLM's `POST /score`: one text beside one or many, or as many beside as many."""

    model: Name
    text_1: Annotated[Any, _TEXT_OR_TEXTS]
    """The query, or one for each of the others."""
    text_2: Annotated[Any, _TEXT_OR_TEXTS]
    """The documents."""

    @field_validator("text_1", "text_2")
    @classmethod
    def _texts(cls, value: object) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        return tuple(_text(index, each) for index, each in enumerate(_some(texts)))


def _some(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of texts; not empty")
    if len(value) > MAX_DOCUMENTS:
        raise ValueError(f"at most {MAX_DOCUMENTS} texts are allowed, got {len(value)}")
    return value


def _document(index: int, value: object) -> str:
    match value:
        case {"text": str(text)}:
            return _text(index, text)
        case str(text):
            return _text(index, text)
        case _:
            raise ValueError(f"document {index} must be a text, or an object with a text")


def _text(index: int, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text {index} must be a string")  # noqa: TRY004 - pydantic's
    return encodable(value)
