"""Log probabilities of an answer's tokens, as chat completions and as completions write them."""

import codecs
from collections.abc import Sequence
from typing import Any, Final

from ullage_runtime.core.domain import LikelyToken, TokenLogprobs

LOWEST: Final = -9999.0
"""What OpenAI writes for a token that cannot come: JSON has no infinity."""


def chat_logprobs(tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Return the `logprobs` object of a chat's choice."""
    return {
        "content": [
            {**_told(token.chosen), "top_logprobs": [_told(each) for each in token.likeliest]}
            for token in tokens
        ],
        "refusal": None,
    }


def _told(token: LikelyToken) -> dict[str, Any]:
    return {"token": _text(token), "logprob": _finite(token.logprob), "bytes": list(token.text)}


def _top(token: TokenLogprobs) -> dict[str, float]:
    return {_text(each): _finite(each.logprob) for each in (*token.likeliest, token.chosen)}


def _text(token: LikelyToken) -> str:
    return token.text.decode(errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST)


class TextLogprobs:
    """Writes the `logprobs` object of one choice of completions, part by part.

    `text_offset` counts characters of the answer; a character that several tokens make is where the
    first of them is.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def told(self, tokens: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """Return the object of the answer's next tokens."""
        return {
            "tokens": [_text(token.chosen) for token in tokens],
            "token_logprobs": [
                None if token.is_first else _finite(token.chosen.logprob) for token in tokens
            ],
            "top_logprobs": [None if token.is_first else _top(token) for token in tokens],
            "text_offset": [self._passed(token.chosen) for token in tokens],
        }

    def _passed(self, token: LikelyToken) -> int:
        goes_on = b"\x80" <= token.text[:1] < b"\xc0"
        if not goes_on:
            # What the tokens before left of a character will never be one.
            self._offset += len(self._decoder.decode(b"", final=True))
        offset = self._offset
        self._offset += len(self._decoder.decode(token.text))
        return offset
