"""From texts to the tokens that are pooled: special tokens, pairs, and the longest text."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ullage_runtime.core.errors import ContextLengthExceeded, InvalidRequest
from ullage_runtime.core.pooled import EmbedRequest, RerankRequest, TextOrTokens
from ullage_runtime.engines.lengths import Tokenizer, excessive

_SPACIOUS: Final = 4
"""How many times its tokens' own bytes a text may have: white space may become no token."""


class Vocabulary(Tokenizer, Protocol):
    """What tokens a model knows."""

    @property
    def vocabulary_size(self) -> int:
        """How many there are."""
        ...

    @property
    def longest_token(self) -> int:
        """Bytes of the longest one, or 0 if nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens that a model wants around a text, and between the two of a pair."""

    opening: tuple[int, ...]
    between: tuple[int, ...]
    closing: tuple[int, ...]
    query: str = "{}"
    """The text that a query becomes a part of, before it becomes tokens."""
    document: str = "{}"
    """Likewise; the document ends it."""


# Before Python 3.12 an array cannot say what it is of.
class Pair(array):  # type: ignore[type-arg]
    """The tokens of a query and a document."""

    second: int
    """Where the document begins."""


class PooledTexts:
    """Tokenizes for one model; any thread may, as a vocabulary never changes."""

    def __init__(self, vocabulary: Vocabulary, longest: int, frame: Frame) -> None:
        """`longest` is in tokens, those of the frame included."""
        self._vocabulary = vocabulary
        self._longest = longest
        self._frame = frame

    def embedded(self, request: EmbedRequest) -> list[Sequence[int]]:
        """Return the tokens of each text; raises InvalidRequest or ContextLengthExceeded."""
        return [
            self._input(f"input[{index}]", text, truncate=request.truncate)
            for index, text in enumerate(request.inputs)
        ]

    def ranked(self, request: RerankRequest) -> list[Sequence[int]]:
        """Return the tokens of each pair of query and document.

        They are laid out as cross-encoders are trained: `[CLS] query [SEP] document [SEP]`, or
        whatever the vocabulary has in their place.
        """
        frame, closing = self._frame, self._frame.closing
        query = frame.query.replace("{}", request.query, 1)
        head = [*frame.opening, *self._tokenized("query", query), *frame.between]
        room = self._longest - len(head) - len(closing)
        if room < 1:
            raise self._too_long("query", len(head) + len(closing), "leaves no room for a document")
        return [
            _pair(head, [*self._document(index, text, room, request), *closing])
            for index, text in enumerate(request.documents)
        ]

    def _document(self, index: int, text: str, room: int, request: RerankRequest) -> list[int]:
        path, text = f"documents[{index}]", self._frame.document.replace("{}", text, 1)
        if request.max_document_tokens is None and not request.truncate:
            tokens = self._tokenized(path, text)
            if len(tokens) > room:
                raise self._too_long(path, len(tokens) + self._longest - room, "with its query")
            return tokens
        most = min(room, request.max_document_tokens or room)
        return self._vocabulary.tokenized(self._beginning(text), add_special=False)[:most]

    def _input(self, path: str, text: TextOrTokens, *, truncate: bool) -> Sequence[int]:
        tokens = list(text) if isinstance(text, tuple) else self._whole(path, text, truncate)
        if isinstance(text, tuple):
            self._check_ids(path, text)
        if not tokens:
            raise InvalidRequest(f"{path} has no tokens", param="input")
        if len(tokens) <= self._longest:
            return _kept(tokens)
        if not truncate:
            raise self._too_long(path, len(tokens))
        closing = [] if isinstance(text, tuple) else self._frame.closing
        return _kept([*tokens[: self._longest - len(closing)], *closing])

    def _whole(self, path: str, text: str, truncate: bool) -> list[int]:  # noqa: FBT001
        if truncate:
            return self._vocabulary.tokenized(self._beginning(text))
        self._check_length(path, text)
        return self._vocabulary.tokenized(text)

    def _beginning(self, text: str) -> str:
        """Return as much of a text as can become the tokens that are kept, spaces included."""
        per_token = self._most_per_token
        return text[: per_token * self._longest] if per_token else text

    @property
    def _most_per_token(self) -> int:
        """Bytes of a text that may become a single token, or 0 if nobody knows."""
        longest = self._vocabulary.longest_token
        return _SPACIOUS * (longest + 1) if longest else 0

    def _tokenized(self, path: str, text: str) -> list[int]:
        self._check_length(path, text)
        return self._vocabulary.tokenized(text, add_special=False)

    def _check_ids(self, path: str, tokens: tuple[int, ...]) -> None:
        size = self._vocabulary.vocabulary_size
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"{path}: token {wrong} is not in the model's vocabulary of {size}", param="input"
            )

    def _check_length(self, path: str, text: str) -> None:
        """Refuse what cannot fit before tokenizing it."""
        per_token = self._most_per_token
        least: int | None = len(text.encode()) // per_token if per_token else 0
        if not least or least <= self._longest:
            least = excessive(self._vocabulary, text, self._longest)
        if least is not None:
            raise self._too_long(path, least, about="at least ")

    def _too_long(
        self, path: str, tokens: int, what: str = "", about: str = ""
    ) -> ContextLengthExceeded:
        what = f", {what}" if what else ""
        return ContextLengthExceeded(
            f"{path} has {about}{tokens} tokens{what}; this model takes {self._longest} at once: "
            "shorten it, or send truncate: true to leave its end out",
            param=path.partition("[")[0],
            details={"prompt_tokens": tokens, "context_length": self._longest},
        )


def _pair(query: Sequence[int], document: Sequence[int]) -> Pair:
    pair = Pair("i", [*query, *document])
    pair.second = len(query)
    return pair


def _kept(tokens: Sequence[int]) -> Sequence[int]:
    """Return tokens in a form that takes 4 bytes each: many of them wait."""
    return array("i", tokens)
