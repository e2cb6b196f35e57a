"""The bodies of `POST /tokenize` and `/detokenize`: vLLM's, and llama-server's as far as simple."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from ullage_runtime.http.openai.fields import TOKENS_SCHEMA, Request, Text
from ullage_runtime.http.openai.messages import ChatMessage
from ullage_runtime.http.openai.schema import MAX_MESSAGES, Name, is_tokens

MAX_TOKENS: Final = 1 << 20

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "add_generation_prompt": (None, True),
    "continue_final_message": (None, False),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "tools": (None, []),
    "parse_special": (None, True),
}
"""Parameters that are not supported, each with the values that change nothing."""


_WAYS: Final = ("prompt", "content", "messages")


class TokenizeBody(Request):
    """The body of `POST /tokenize`; exactly one of `prompt`, `content` and `messages` is sent."""

    model: Name
    prompt: Text | None = None
    content: Text | None = None
    """What llama-server calls the prompt."""
    messages: Annotated[list[ChatMessage] | None, Field(min_length=1, max_length=MAX_MESSAGES)] = (
        None
    )
    """A chat, which goes through the model's template."""
    add_special_tokens: bool | None = None
    """Whether a prompt gets the special tokens that the model wants around it; true by default."""
    add_special: bool | None = None
    """The same for `content`; false by default."""
    return_token_strs: bool | None = None
    """Whether each token's text is answered, too."""
    with_pieces: bool | None = None
    """The same by llama-server's name, whose tokens are then objects."""

    @model_validator(mode="after")
    def _one(self) -> "TokenizeBody":
        given = [
            name for name in ("prompt", "content", "messages") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(
                "send exactly one of prompt, content and messages"
                + (f", not {' and '.join(given)}" if given else "")
            )
        return self


class DetokenizeBody(Request):
    """The body of `POST /detokenize`."""

    model: Name
    tokens: Annotated[
        Any,
        WithJsonSchema({**TOKENS_SCHEMA, "minItems": 0, "maxItems": MAX_TOKENS}),
    ]

    @field_validator("tokens")
    @classmethod
    def _ids(cls, value: object) -> tuple[int, ...]:
        if value != [] and not is_tokens(value):
            raise ValueError("must be a list of token ids")
        tokens: list[int] = value  # type: ignore[assignment]
        if len(tokens) > MAX_TOKENS:
            raise ValueError(f"at most {MAX_TOKENS} tokens are allowed, got {len(tokens)}")
        return tuple(tokens)
