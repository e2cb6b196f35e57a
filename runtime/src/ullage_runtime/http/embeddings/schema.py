"""The body of `POST /v1/embeddings`: OpenAI's, with what other embedding APIs add to it."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, WithJsonSchema, field_validator

from ullage_runtime.core.pooled import Output, Role, TextOrTokens
from ullage_runtime.http.openai.fields import TOKENS_SCHEMA, Request, encodable
from ullage_runtime.http.openai.schema import Name, is_tokens
from ullage_runtime.http.roles import ROLE_NAMES, role_of

MAX_INPUTS: Final = 2048
MAX_DIMENSIONS: Final = 1 << 16

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "normalize": (None, True),
    "normalized": (None, True),
    "late_chunking": (None, False),
    "truncate_prompt_tokens": (None,),
    "truncation_direction": (None, "Right"),
    "prompt_name": (None,),
    "output_dtype": (None, "float"),
    "embedding_types": (None, ["float"]),
    "messages": (None,),
    "return_dense": (None, True),
}
"""Parameters that are not supported, each with the values that change nothing."""

_TEXT: Final = {"type": "string", "minLength": 1}
_INPUT: Final = WithJsonSchema(
    {
        "anyOf": [
            _TEXT,
            TOKENS_SCHEMA,
            {
                "type": "array",
                "items": {"anyOf": [_TEXT, TOKENS_SCHEMA]},
                "minItems": 1,
                "maxItems": MAX_INPUTS,
            },
        ]
    }
)
_ROLE: Final = WithJsonSchema({"anyOf": [{"enum": list(ROLE_NAMES)}, {"type": "null"}]})
_TRUNCATE: Final = WithJsonSchema(
    {"anyOf": [{"type": "boolean"}, {"enum": ["NONE", "END"]}, {"type": "null"}]}
)


def truncation(value: object) -> bool:
    """Return whether texts lose their end, as TEI and as NVIDIA and Cohere spell it."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if value not in ("NONE", "END"):
        raise ValueError('must be true, false, "NONE" or "END"')
    return value == "END"


class EmbeddingRequest(Request):
    """The body of `POST /v1/embeddings`."""

    model: Name
    input: Annotated[Any, _INPUT]
    """A text, a list of token ids, or a list of either; none empty."""
    encoding_format: Literal["float", "base64"] | None = None
    """`base64` is of 32-bit little-endian floats."""
    dimensions: Annotated[int | None, Field(ge=1, le=MAX_DIMENSIONS)] = None
    """How many of each vector's first numbers are wanted; scaled to length 1 again."""
    truncate: Annotated[Any, _TRUNCATE] = None
    """Whether a text that is too long loses its end; otherwise it is refused."""
    input_type: Annotated[Any, _ROLE] = None
    """What the texts are for: `query` or `document`; the model's instruction goes before them."""
    task: Annotated[Any, _ROLE] = None
    """The same by another name."""
    embedding_type: Literal["dense", "sparse", "colbert"] | None = None
    """What `embedding` is: one vector, a weight for each token (sparse), or a vector for each."""
    return_sparse: bool | None = None
    """Whether each result has its sparse vector beside its embedding."""
    return_colbert_vecs: bool | None = None
    """Whether each result has its tokens' vectors beside its embedding."""
    user: Any = None
    """Accepted and ignored."""

    @field_validator("input")
    @classmethod
    def _inputs(cls, value: object) -> tuple[TextOrTokens, ...]:
        if isinstance(value, str) or is_tokens(value):
            value = [value]
        if not isinstance(value, list) or not value:
            raise ValueError("must be a text, a list of token ids, or a list of either; not empty")
        if len(value) > MAX_INPUTS:
            raise ValueError(f"at most {MAX_INPUTS} inputs are allowed, got {len(value)}")
        return tuple(_input(index, each) for index, each in enumerate(value))

    @field_validator("truncate")
    @classmethod
    def _truncation(cls, value: object) -> bool:
        return truncation(value)

    @field_validator("input_type", "task")
    @classmethod
    def _role(cls, value: object) -> Role | None:
        if value is not None and not isinstance(value, str):
            raise ValueError("must be a string")
        return None if value is None else role_of(value)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What is wanted of each text."""
        wanted = {Output(self.embedding_type or Output.DENSE)}
        if self.return_sparse:
            wanted.add(Output.SPARSE)
        if self.return_colbert_vecs:
            wanted.add(Output.COLBERT)
        return tuple(output for output in Output if output in wanted)


def _input(index: int, value: object) -> TextOrTokens:
    if isinstance(value, str):
        if not value:
            raise ValueError(f"input {index} is empty")
        return encodable(value)
    if isinstance(value, list) and is_tokens(value):
        return tuple(value)
    raise ValueError(f"input {index} must be a text or a list of token ids; not empty")
