"""Lengths: whether a text can fit, before it is tokenized as a whole.

Some of llama.cpp's tokenizers take the square of a text's length: 46 s were measured for 368 KB. So
a long text is first counted in pieces, and given up as soon as there is no doubt.
"""

from typing import Final, Protocol

PIECE: Final = 16 << 10
"""Characters that are tokenized at once; a text that is shorter is not counted beforehand."""
DOUBT: Final = 2
"""How often a text must exceed the limit: at its cuts, pieces have other tokens than the whole."""


class Tokenizer(Protocol):
    """What makes tokens of texts."""

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return a text's tokens."""
        ...


def excessive(tokenizer: Tokenizer, text: str, limit: int) -> int | None:
    """Return how many tokens a text has at least if they are far more than a limit, else None."""
    count = 0
    for start in range(0, len(text) if len(text) > PIECE else 0, PIECE):
        count += len(tokenizer.tokenized(text[start : start + PIECE], add_special=False))
        if count > DOUBT * limit:
            return count // DOUBT
    return None
