"""Vocabulary: tokenizing for whoever asks, beside the engine; any thread may use it."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ullage_runtime.core.domain import GenerateRequest
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens

MAX_TEXT_BYTES: Final = 256 << 10
"""Longest text that is tokenized for its tokens' sake: some tokenizers take the square of it."""


class Spelling(Protocol):
    """How a model spells texts."""

    @property
    def vocabulary_size(self) -> int:
        """How many tokens it knows."""
        ...

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return a text's tokens."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return a token's bytes; special ones have none unless they are asked for."""
        ...

    def detokenized(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones spelled out."""
        ...


class Vocabulary:
    """One model's vocabulary; reads nothing that ever changes."""

    def __init__(
        self, model: Spelling, chat_tokens: Callable[[GenerateRequest], Sequence[int]]
    ) -> None:
        """`chat_tokens` returns those of a chat; raises ServingError."""
        self._model = model
        self._chat_tokens = chat_tokens

    def tokenized(self, request: TokenizeRequest) -> Tokens:
        """Return the tokens of a text or a chat; raises ServingError."""
        if request.chat is not None:
            ids = list(self._chat_tokens(request.chat))
        else:
            text = request.text or ""
            if len(text.encode()) > MAX_TEXT_BYTES:
                raise InvalidRequest(
                    f"the text has {len(text.encode())} bytes; at most {MAX_TEXT_BYTES} are "
                    "tokenized at once: send it in parts",
                    param="prompt",
                )
            ids = self._model.tokenized(text, add_special=request.add_special)
        pieces = (self._model.piece(token, special=True) for token in ids)
        return Tokens(tuple(ids), tuple(pieces) if request.with_pieces else ())

    def detokenized(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens, special ones spelled out; raises InvalidRequest."""
        size = self._model.vocabulary_size
        wrong = next((token for token in request.tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"token {wrong} is not in the model's vocabulary of {size}", param="tokens"
            )
        return self._model.detokenized(request.tokens)
