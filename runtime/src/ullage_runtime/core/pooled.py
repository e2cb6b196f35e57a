"""Embedding and ranking: whole texts in, one vector or one score for each out, as plain data.

Texts are pooled: a model computes all of a text's tokens at once and says one thing of it. Nothing
is generated, so a request is answered in parts, in whatever order its texts were computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ullage_runtime.core.vectors import FLOAT_BYTES

DEFAULT_TEXTS: Final = 64
"""Texts an engine computes together at most, when the spec names no number."""


class Ability(StrEnum):
    """What a loaded model can be asked for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


class Output(StrEnum):
    """What a model says of a text; one forward pass gives all that a model has of them."""

    DENSE = "dense"
    """One vector of the whole text; of a pair, its score."""
    SPARSE = "sparse"
    """A weight for each different token (Formal et al., "SPLADE", 2021)."""
    COLBERT = "colbert"
    """A vector for each token (Khattab and Zaharia, "ColBERT", 2020)."""


class PoolingType(StrEnum):
    """How the vectors of a text's tokens become the text's vector."""

    AUTO = "Auto"
    """What the file says; else the mean of an encoder's, the last of a decoder's."""
    MEAN = "Mean"
    CLS = "CLS"
    LAST = "Last"


class Role(StrEnum):
    """What an embedded text is for; many models want another instruction before each."""

    QUERY = "query"
    DOCUMENT = "document"


TextOrTokens = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The weights of a text's tokens; both in this machine's order."""

    tokens: bytes
    """Different ids from the vocabulary, ascending: 32-bit integers."""
    weights: bytes
    """A weight above 0 for each of them: 32-bit floats."""


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A vector of length 1 for each of a text's tokens but the first, one behind the other."""

    values: bytes
    """32-bit floats in this machine's order."""
    width: int
    """Numbers of each vector."""

    @property
    def rows(self) -> Iterator[bytes]:
        """The vectors, one by one."""
        step = self.width * FLOAT_BYTES
        return (self.values[at : at + step] for at in range(0, len(self.values), step))


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts, or their tokens, each to become a vector."""

    request_id: str
    inputs: tuple[TextOrTokens, ...]
    truncate: bool = False
    """Whether a text that is too long loses its end; otherwise it is refused."""
    outputs: tuple[Output, ...] = (Output.DENSE,)
    """What is wanted of each text."""
    tenant: str = ""
    """Who asks: tenants take turns."""
    timeout_seconds: float | None = None
    """Time after which the engine ends it with RequestTimeout."""
    lasting: bool = True
    """Whether vectors may be kept on a disk, where they outlive what they were made of."""

    @property
    def characters(self) -> int:
        """How much text of it has to become tokens."""
        return sum(len(text) for text in self.inputs if isinstance(text, str))


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Documents, each to be scored by how well it answers the query."""

    request_id: str
    query: str
    documents: tuple[str, ...]
    truncate: bool = False
    """Whether a document that is too long loses its end; otherwise it is refused."""
    max_document_tokens: int | None = None
    """Tokens of a document that are looked at; None looks at all that fit."""
    tenant: str = ""
    timeout_seconds: float | None = None

    @property
    def characters(self) -> int:
        """How much text of it has to become tokens."""
        return sum(map(len, (self.query, *self.documents)))


PooledRequest = EmbedRequest | RerankRequest


@dataclass(frozen=True, slots=True)
class Said:
    """What a model says of one text: no more than was asked."""

    values: bytes = b""
    """The vector, of length 1, or the raw score: 32-bit floats in this machine's order."""
    sparse: SparseVector | None = None
    colbert: TokenVectors | None = None

    @property
    def size(self) -> int:
        """Bytes of all numbers."""
        sparse, colbert = self.sparse, self.colbert
        return (
            len(self.values)
            + (0 if sparse is None else len(sparse.tokens) + len(sparse.weights))
            + (0 if colbert is None else len(colbert.values))
        )


@dataclass(frozen=True, slots=True)
class Pooled:
    """What an engine has computed of one text."""

    index: int
    """Place of the text in its request."""
    said: Said
    tokens: int
    """Tokens the text had."""


@dataclass(frozen=True, slots=True)
class PooledPart:
    """What one step of the engine computed of one request."""

    items: tuple[Pooled, ...]
    is_last: bool


@dataclass(frozen=True, slots=True)
class PooledAnswer:
    """All of a request's vectors or scores, in the order of its texts."""

    said: tuple[Said, ...]
    lengths: tuple[int, ...]
    """Tokens of each text."""
    cached_tokens: int = 0
    """Tokens of texts that did not have to be computed for this request."""

    @property
    def values(self) -> tuple[bytes, ...]:
        """Each text's one vector, or its score."""
        return tuple(each.values for each in self.said)

    @property
    def tokens(self) -> int:
        """Tokens of all texts together."""
        return sum(self.lengths)


def answer_of(items: list[Pooled]) -> PooledAnswer:
    """Return the answer that a request's items make up, whatever order they came in."""
    ordered = sorted(items, key=lambda item: item.index)
    return PooledAnswer(
        said=tuple(item.said for item in ordered),
        lengths=tuple(item.tokens for item in ordered),
    )
