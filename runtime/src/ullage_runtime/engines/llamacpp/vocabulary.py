"""A model's vocabulary: which tokens a text is, and what each token spells."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from ullage_runtime.engines.llamacpp.bindings import llama_cpp

_PIECE_BYTES: Final = 256


class LlamaVocabulary:
    """llama.cpp's vocabulary of a model that is loaded; any thread may ask it."""

    vocabulary: Any
    """Its handle, there once the model is loaded."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the vocabulary."""
        return int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))

    @property
    def bos(self) -> int | None:
        """The token that begins a text, or None."""
        token = int(llama_cpp.llama_vocab_bos(self.vocabulary))
        return token if token >= 0 else None

    @property
    def eos(self) -> int | None:
        """The token that ends a text, or None."""
        token = int(llama_cpp.llama_vocab_eos(self.vocabulary))
        return token if token >= 0 else None

    @property
    def infill_markers(self) -> tuple[int, int, int] | None:
        """The tokens before a gap's prefix, its suffix and its content, or None."""
        known = (
            llama_cpp.llama_vocab_fim_pre,
            llama_cpp.llama_vocab_fim_suf,
            llama_cpp.llama_vocab_fim_mid,
        )
        before, after, middle = (int(each(self.vocabulary)) for each in known)
        return (before, after, middle) if min(before, after, middle) >= 0 else None

    @property
    def separator(self) -> int | None:
        """The token between two texts, where it is one of its own, or None."""
        token = int(llama_cpp.llama_vocab_sep(self.vocabulary))
        wanted = bool(llama_cpp.llama_vocab_get_add_sep(self.vocabulary))
        return token if wanted and token >= 0 else None

    @property
    def adds_bos(self) -> bool:
        """Whether the model wants its prompts to begin with `bos`."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self.vocabulary))

    @property
    def adds_eos(self) -> bool:
        """Whether the tokenizer ends texts with `eos`, which a prompt must not."""
        return bool(llama_cpp.llama_vocab_get_add_eos(self.vocabulary))

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends a generation."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generation."""
        return tuple(filter(self.is_end, range(self.vocabulary_size)))

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return a text's tokens; markers of special tokens in it become those tokens."""
        return tokenized(self.vocabulary, text, add_special=add_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return a token's bytes; control tokens have none unless they are asked for."""

        def write(buffer: Any, capacity: int) -> int:
            return int(
                llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, capacity, 0, special)
            )

        spelled: bytes = _written(write, ctypes.c_char, _PIECE_BYTES)
        return spelled

    def detokenized(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones spelled out."""
        given = (llama_cpp.llama_token * len(tokens))(*tokens)
        removed, spelled = False, True

        def write(buffer: Any, capacity: int) -> int:
            return int(
                llama_cpp.llama_detokenize(
                    self.vocabulary, given, len(tokens), buffer, capacity, removed, spelled
                )
            )

        text: bytes = _written(write, ctypes.c_char, 4 * len(tokens) + _PIECE_BYTES)
        return text.decode(errors="replace")


def _written(write: Callable[[Any, int], int], kind: Any, capacity: int) -> Any:
    """Return what is written into a buffer, which is made larger when it has to be.

    That is bytes of `c_char`, and a list of any other kind.
    """
    while True:
        buffer = (kind * capacity)()
        count = write(buffer, capacity)
        if count >= 0:
            return buffer[:count]
        capacity = -count


def tokenized(
    vocabulary: Any, text: str, *, add_special: bool = True, markers: bool = True
) -> list[int]:
    """Return a text's tokens by a vocabulary's handle; `markers` of control tokens become those."""
    data = text.encode()

    def write(buffer: Any, capacity: int) -> int:
        return int(
            llama_cpp.llama_tokenize(
                vocabulary, data, len(data), buffer, capacity, add_special, markers
            )
        )

    tokens: list[int] = _written(write, llama_cpp.llama_token, len(data) + 8)
    return tokens
