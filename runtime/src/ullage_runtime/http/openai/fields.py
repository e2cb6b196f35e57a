"""Kinds of values in requests: each has a range, which its error names."""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic.functional_validators import WrapValidator

MAX_STOPS: Final = 16
MAX_STOP_LENGTH: Final = 256
MAX_STOP_TOKENS: Final = 128
MAX_BIASES: Final = 1024
MAX_BIAS: Final = 100
MAX_LOGPROBS: Final = 20
MAX_CHOICES: Final = 128
"""Generations of one request, over all of its prompts."""

_TOKEN = re.compile(r"[0-9]{1,10}")
_TOKENS: Final = 1 << 31


class Request(BaseModel):
    """A JSON object of a client."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def named(what: str) -> WrapValidator:
    """Return a validator that says what a value must be, whatever is wrong with it."""

    def checked(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"must be {what}") from None

    return WrapValidator(checked)


Temperature = Annotated[float, Field(ge=0, le=2), named("a number from 0 to 2")]
Share = Annotated[float, Field(gt=0, le=1), named("a number above 0 and up to 1")]
Ratio = Annotated[float, Field(ge=0, le=1), named("a number from 0 to 1")]
Penalty = Annotated[float, Field(ge=-2, le=2), named("a number from -2 to 2")]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# To JSON, 8.0 is an integer; clients in languages that know only one kind of number write it so.
_WHOLE = BeforeValidator(_whole)

# Divided by less than this, logits leave the range of numbers.
Repetition = Annotated[float, Field(ge=0.01, le=10), named("a number from 0.01 to 10")]
TopK = Annotated[
    int,
    Field(ge=-1, lt=_TOKENS),
    _WHOLE,
    named(f"an integer from 0 to {_TOKENS - 1}, or -1 for all"),
]
Limit = Annotated[
    int, Field(ge=1, lt=_TOKENS), _WHOLE, named(f"an integer from 1 to {_TOKENS - 1}")
]
LimitOrNone = Annotated[
    int, Field(ge=0, lt=_TOKENS), _WHOLE, named(f"an integer from 0 to {_TOKENS - 1}")
]
Seed = Annotated[
    int, Field(ge=-(1 << 63), lt=1 << 63), _WHOLE, named("an integer from -2**63 to 2**63 - 1")
]
Count = Annotated[
    int, Field(ge=1, le=MAX_CHOICES), _WHOLE, named(f"an integer from 1 to {MAX_CHOICES}")
]
Logprobs = Annotated[
    int, Field(ge=0, le=MAX_LOGPROBS), _WHOLE, named(f"an integer from 0 to {MAX_LOGPROBS}")
]

Tier = Annotated[
    Literal["auto", "default", "flex", "scale", "priority"],
    named("one of auto, default, flex, scale and priority"),
]
"""How urgent a request is, in OpenAI's words."""
ServedTier = Literal["default", "flex"]
"""What there really is of that: `flex` goes after everybody else, and nobody goes before others."""


def encodable(text: str) -> str:
    """Return the text, or raise ValueError: JSON can spell halves of characters, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode; it has an unpaired surrogate") from None
    return text


Text = Annotated[str, WrapValidator(lambda value, handler: encodable(handler(value)))]
"""Text that UTF-8 can carry."""


def _stops(value: object) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise ValueError("must be a string or a list of strings")  # noqa: TRY004 - pydantic's
    if len(stops) > MAX_STOPS:
        raise ValueError(f"at most {MAX_STOPS} stop sequences are allowed, got {len(stops)}")
    if not all(isinstance(stop, str) for stop in stops):
        raise ValueError("must be a string or a list of strings")
    if any(not 1 <= len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise ValueError(f"each stop sequence must have 1 to {MAX_STOP_LENGTH} characters")
    return tuple(encodable(stop) for stop in stops)


_STOP: Final = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH}
_STOP_LIST: Final = {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}
Stops = Annotated[
    tuple[str, ...],
    PlainValidator(_stops),
    WithJsonSchema({"anyOf": [_STOP, _STOP_LIST, {"type": "null"}]}),
]
"""A text, or up to 16 of them, that ends an answer."""


def _stop_tokens(value: object) -> tuple[int, ...]:
    tokens = [] if value is None else value
    if not isinstance(tokens, list):
        raise ValueError("must be a list of token ids")  # noqa: TRY004 - likewise
    if len(tokens) > MAX_STOP_TOKENS:
        raise ValueError(f"at most {MAX_STOP_TOKENS} tokens are allowed, got {len(tokens)}")
    if not all(type(token) is int and 0 <= token < _TOKENS for token in tokens):
        raise ValueError(f"each must be a token id from 0 to {_TOKENS - 1}")
    return tuple(tokens)


_TOKEN_ID: Final = {"type": "integer", "minimum": 0, "exclusiveMaximum": _TOKENS}
TOKENS_SCHEMA: Final = {"type": "array", "items": _TOKEN_ID, "minItems": 1}
"""A list of token ids, as the OpenAPI document says it."""
_STOP_TOKENS: Final = {"type": "array", "items": _TOKEN_ID, "maxItems": MAX_STOP_TOKENS}
StopTokens = Annotated[
    tuple[int, ...],
    PlainValidator(_stop_tokens),
    WithJsonSchema({"anyOf": [_STOP_TOKENS, {"type": "null"}]}),
]
"""Tokens that end an answer."""


def _biases(value: object) -> tuple[tuple[int, float], ...]:
    biases = {} if value is None else value
    if not isinstance(biases, dict):
        raise ValueError("must be an object of token ids and biases")  # noqa: TRY004 - likewise
    if len(biases) > MAX_BIASES:
        raise ValueError(f"at most {MAX_BIASES} tokens are allowed, got {len(biases)}")
    return tuple((_token(key), _bias(bias)) for key, bias in biases.items())


def _token(key: str) -> int:
    if not _TOKEN.fullmatch(key) or int(key) >= _TOKENS:
        raise ValueError(f"its keys must be token ids, such as '1234', and not {key[:40]!r}")
    return int(key)


def _bias(bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= MAX_BIAS:
        raise ValueError(f"each bias must be a number from -{MAX_BIAS} to {MAX_BIAS}")
    return float(bias)


_BIASES: Final = {
    "type": "object",
    "propertyNames": {"pattern": f"^{_TOKEN.pattern}$"},
    "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS},
    "maxProperties": MAX_BIASES,
}
Biases = Annotated[
    tuple[tuple[int, float], ...],
    PlainValidator(_biases),
    WithJsonSchema({"anyOf": [_BIASES, {"type": "null"}]}),
]
"""What is added to the logits of tokens, by their ids."""
