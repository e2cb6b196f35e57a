"""HubTokenizer: the hub's `tokenizer.json`, read by `tokenizers`; any thread may use it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.engines.pooled.texts import Frame

_PROBE: Final = "a"
"""A text that every vocabulary makes some token of."""


class HubTokenizer:
    """One model's vocabulary."""

    def __init__(self, path: Path) -> None:
        """Read it; raises LoadError(InvalidModel)."""
        try:
            self._tokenizer: Any = Tokenizer.from_str(path.read_text(encoding="utf-8"))
            # Files are often saved with the settings of the last training run.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
            added = self._tokenizer.get_added_tokens_decoder()
            pair = self._tokenizer.encode(_PROBE, _PROBE, add_special_tokens=True)
        except Exception as error:  # tokenizers raises nothing narrower
            raise invalid_model(f"tokenizer.json cannot be read: {str(error)[:200]}") from error
        if not vocabulary:
            raise invalid_model("tokenizer.json has no vocabulary")
        self.frame = _frame(pair)
        self.second_type = max(pair.type_ids, default=0)
        """What the tokens of a pair's second text are called."""
        self.special = frozenset(id_ for id_, token in added.items() if token.special)
        """Tokens that stand for no text: what begins, ends, parts and fills up."""
        self.last_token = max(vocabulary.values())
        self.vocabulary_size = self.last_token + 1
        self.longest_token = max(len(token.encode()) for token in vocabulary)

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return a text's tokens; markers of special tokens in it become those tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    def plain(self) -> "PlainText":
        """Return the vocabulary in which markers of special tokens are text."""
        return PlainText(self)

    @property
    def as_text(self) -> str:
        """The whole of it, as `tokenizer.json` has it."""
        text: str = self._tokenizer.to_str()
        return text

    def piece(self, token: int, *, special: bool = False) -> bytes:  # noqa: ARG002 - both are shown
        """Return a token as the vocabulary spells it, such as `##ing`."""
        return (self._tokenizer.id_to_token(token) or "").encode()

    def detokenized(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones spelled out."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return text


class PlainText:
    """A vocabulary without special tokens: whoever writes a text cannot end it."""

    def __init__(self, vocabulary: HubTokenizer) -> None:
        self.vocabulary_size = vocabulary.vocabulary_size
        self.longest_token = vocabulary.longest_token
        self._tokenizer: Any = Tokenizer.from_str(vocabulary.as_text)
        self._tokenizer.encode_special_tokens = True

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return a text's tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids


def _frame(pair: Any) -> Frame:
    """Return the special tokens around a text and between two, as an encoded pair has them."""
    groups: list[list[int]] = [[], [], []]
    texts = 0
    for token, sequence in zip(pair.ids, pair.sequence_ids, strict=True):
        if sequence is None:
            groups[texts].append(token)
        else:
            texts = sequence + 1
    opening, between, closing = map(tuple, groups)
    return Frame(opening, between, closing)
