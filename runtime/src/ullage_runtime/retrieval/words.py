"""Sparse vectors of texts: BM25's term weights; how rare a word is, the store knows by itself.

The engine's own encoder is used, whose vectors are those of Qdrant's servers too: stop words and
endings of English are taken off. S. Robertson and H. Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009.
"""

from functools import cache
from typing import TYPE_CHECKING, Final

from ullage_runtime.retrieval.stores.port import Sparse

if TYPE_CHECKING:
    import qdrant_edge

AVERAGE_WORDS: Final = 64
"""Words of a usual chunk, stop words left out: longer ones are taken to say less with each word."""


def document_words(text: str) -> Sparse:
    """Return the sparse vector of a text that is to be found."""
    return _sparse(_encoder().embed_document(text))


def query_words(text: str) -> Sparse:
    """Return the sparse vector of a text that is looked for."""
    return _sparse(_encoder().embed_query(text))


@cache
def _encoder() -> "qdrant_edge.Bm25":
    import qdrant_edge

    return qdrant_edge.Bm25(qdrant_edge.Bm25Config(avg_len=float(AVERAGE_WORDS)))


def _sparse(vector: "qdrant_edge.SparseVector") -> Sparse:
    return Sparse(tuple(vector.indices), tuple(vector.values))
