"""Tokenizing, as plain data: what a vocabulary makes of a text, and of tokens."""

from dataclasses import dataclass

from ullage_runtime.core.domain import GenerateRequest


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A text, or a chat, whose tokens are wanted: exactly one of `text` and `chat` is set."""

    request_id: str
    text: str | None = None
    chat: GenerateRequest | None = None
    """Tokenized as if it were to be answered, through the model's chat template."""
    add_special: bool = True
    """Whether a text gets the special tokens that the model wants around it."""
    with_pieces: bool = False
    """Whether each token's own bytes are wanted as well."""


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    """Tokens whose text is wanted."""

    request_id: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a vocabulary makes of a text."""

    ids: tuple[int, ...]
    pieces: tuple[bytes, ...] = ()
    """Each token's bytes, when they were asked for."""
