"""The requests of OpenAI's API, as far as we serve them.

Types are strict, as OpenAI's are: the text "0.5" is no number. Fields that are not declared here
are in one of two groups: `parameters.py` names those that would change the answer, which are
refused unless they are neutral; all others are ignored, as the field's other servers do.
"""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from ullage_runtime.http.openai.fields import (
    MAX_CHOICES,
    TOKENS_SCHEMA,
    Biases,
    Count,
    Limit,
    LimitOrNone,
    Logprobs,
    Penalty,
    Ratio,
    Repetition,
    Request,
    Seed,
    ServedTier,
    Share,
    Stops,
    StopTokens,
    Temperature,
    Text,
    Tier,
    TopK,
    encodable,
)
from ullage_runtime.http.openai.formats import FormattedRequest
from ullage_runtime.http.openai.messages import ChatMessage
from ullage_runtime.http.openai.tools import ToolChoice, ToolDefinitions, json_text

MAX_MESSAGES: Final = 4096
FLEX_PRIORITY: Final = -1
"""Of requests that may wait for others; all other requests have 0."""

Name = Annotated[str, Field(min_length=1, max_length=256)]

# What validators below accept, as the OpenAPI document says it: their own messages are better than
# those of a union of types, which would name every alternative.
# An empty text is a prompt only for models whose tokenizer begins each with a token of its own.
_PROMPT: Final = {"type": "string", "minLength": 1}
_PROMPT_SCHEMA: Final = WithJsonSchema(
    {
        "anyOf": [
            _PROMPT,
            TOKENS_SCHEMA,
            {
                "type": "array",
                "items": {"anyOf": [_PROMPT, TOKENS_SCHEMA]},
                "minItems": 1,
                "maxItems": MAX_CHOICES,
            },
        ]
    }
)


_OPTION: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
_OWN_VARIABLES: Final = frozenset(
    ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")
)
MAX_OPTIONS_BYTES: Final = 16 << 10


def _template_options(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not _OPTION.fullmatch(name) or name in _OWN_VARIABLES:
            raise ValueError(f"{name[:64]!r} is no variable that a request may set")
    if len(json_text(value)) > MAX_OPTIONS_BYTES:
        raise ValueError(f"may have {MAX_OPTIONS_BYTES} bytes")
    return value


class StreamOptions(Request):
    """How a stream is written."""

    include_usage: bool | None = None


class GenerationRequest(FormattedRequest):
    """What chat completions and completions share."""

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: TopK | None = None
    """An extension: 0 or -1 considers the whole vocabulary."""
    min_p: Ratio | None = None
    """An extension: drops tokens less likely than this share of the likeliest."""
    typical_p: Share | None = None
    """An extension: keeps the most typical tokens of this total probability."""
    repetition_penalty: Repetition | None = None
    """An extension: makes tokens of prompt and answer less likely; 1 changes nothing."""
    repeat_penalty: Repetition | None = None
    """What llama.cpp calls `repetition_penalty`."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases = ()
    """What is added to the logits of tokens, by their ids."""
    min_tokens: LimitOrNone | None = None
    """An extension: tokens before which an answer does not end by itself."""
    ignore_eos: bool | None = None
    """An extension: the answer does not end by itself."""
    stop_token_ids: StopTokens = ()
    """An extension: tokens that end the answer."""
    seed: Seed | None = None
    stop: Stops = ()
    """A text, or up to 16 of them, that ends the answer."""
    n: Count | None = None
    """Choices for each prompt."""
    service_tier: Tier | None = None
    """`flex` goes after requests that are not; all else is served as `default`."""
    user: Any = None
    """Accepted and ignored."""

    @field_validator("stream_options")
    @classmethod
    def _options_need_a_stream(
        cls, value: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("is only allowed with stream: true")
        return value

    @field_validator("repeat_penalty")
    @classmethod
    def _one_repetition_penalty(cls, value: float | None, info: ValidationInfo) -> float | None:
        other = info.data.get("repetition_penalty")
        if value is not None and other not in (None, value):
            raise ValueError("means the same as repetition_penalty; send one of them")
        return value

    @field_validator("min_tokens")
    @classmethod
    def _least_is_not_above_most(cls, value: int | None, info: ValidationInfo) -> int | None:
        most = info.data.get("max_completion_tokens") or info.data.get("max_tokens")
        if value is not None and most is not None and value > most:
            raise ValueError(f"must not be above the longest answer's {most} tokens")
        return value

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that carries the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def served_tier(self) -> ServedTier:
        """The tier that it really gets."""
        return "flex" if self.service_tier == "flex" else "default"

    @property
    def priority(self) -> int:
        """What schedulers know of its tier; nobody can ask to go before others."""
        return FLEX_PRIORITY if self.served_tier == "flex" else 0


Effort = Annotated[str, Field(pattern=r"^[a-z]{1,16}$")]
TemplateOptions = Annotated[dict[str, Any], AfterValidator(_template_options)]


class ChatRequest(GenerationRequest):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    logprobs: bool | None = None
    """Whether to tell how likely each token of the answer was."""
    top_logprobs: Logprobs | None = None
    """How many of the likeliest tokens are told beside each."""
    tools: ToolDefinitions | None = None
    """Functions that the model may call."""
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """Whether it may call several at once, as it may unless the request says otherwise."""
    session_id: Annotated[Text, Field(max_length=64)] | None = None
    """An extension: a session whose turns come first, and which the answer becomes a turn of."""
    reasoning_effort: Effort | None = None
    """How much to think, for models whose template reads it."""
    chat_template_kwargs: TemplateOptions | None = None
    """An extension: further variables for the chat template."""

    @field_validator("top_logprobs")
    @classmethod
    def _top_needs_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and not info.data.get("logprobs"):
            raise ValueError("is only allowed with logprobs: true")
        return value


class CompletionRequest(GenerationRequest):
    """The body of `POST /v1/completions`; `prompt` becomes a tuple of texts or token tuples."""

    prompt: Annotated[Any, _PROMPT_SCHEMA]
    max_tokens: LimitOrNone | None = None
    logprobs: Logprobs | None = None
    """How many of the likeliest tokens are told for each token of the answer."""
    echo: bool | None = None
    """Whether the answer begins with the prompt."""
    suffix: Text | None = None
    """Text after the gap that the answer fills, for models that are trained to."""
    best_of: Count | None = None
    """Accepted where it equals `n`."""

    @field_validator("prompt")
    @classmethod
    def _prompts(cls, value: object) -> tuple[str | tuple[int, ...], ...]:
        if isinstance(value, str) or is_tokens(value):
            value = [value]
        if not isinstance(value, list) or not value:
            raise ValueError("must be a string, a list of strings, or a list of token ids")
        if len(value) > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} prompts are allowed, got {len(value)}")
        prompts: list[str | tuple[int, ...]] = []
        for prompt in value:
            if isinstance(prompt, str):
                prompts.append(encodable(prompt))
            elif is_tokens(prompt):
                prompts.append(tuple(prompt))
            else:
                raise ValueError("must be a string, a list of strings, or a list of token ids")
        return tuple(prompts)


def is_tokens(value: object) -> bool:
    """Tell whether a value of a request is a list of token ids."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(type(token) is int and 0 <= token < 1 << 31 for token in value)
    )
