"""Texts that are too long are known before they are tokenized as a whole."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.engines.lengths import PIECE, excessive


@dataclass
class Words:
    """A tokenizer of words, which remembers the texts that it was given."""

    texts: list[str] = field(default_factory=list)

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        assert not add_special
        self.texts.append(text)
        return [0 for _ in text.split()]


def test_a_giant_text_is_given_up_after_what_can_still_be_tokenized_quickly() -> None:
    words = Words()
    least = excessive(words, "word " * 10_000_000, 8192)
    assert least is not None
    assert 8192 < least < 3 * 8192
    assert sum(map(len, words.texts)) <= 2 * 8192 * 5 + PIECE


def test_a_short_text_is_not_counted_beforehand() -> None:
    words = Words()
    assert excessive(words, "word " * 100, 10) is None
    assert not words.texts


@given(st.integers(0, 40_000), st.integers(1, 5_000))
def test_no_text_is_refused_that_fits(count: int, limit: int) -> None:
    least = excessive(Words(), "w " * count, limit)
    if least is not None:
        assert limit < least <= count
