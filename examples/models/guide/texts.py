"""All texts of the corpus in one fixed order, and a digest of how a tokenizer cuts them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from .corpus import REVISIONS, Entry
from .phrasing import paraphrases


def corpus_texts(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield every text: answers of both revisions, questions, paraphrases, lower case."""
    for entry in entries:
        yield from dict.fromkeys(entry.answer(revision) for revision in REVISIONS)
        for question in entry.questions:
            yield question.lower()
            yield from paraphrases(question)


def digest_of_tokens(entries: Iterable[Entry], cut: Callable[[str], Sequence[int]]) -> str:
    """Return a digest of the token ids of every text of the corpus.

    Two tokenizers with the same digest cut the whole corpus alike.
    """
    digest = hashlib.sha256()
    for text in dict.fromkeys(corpus_texts(entries)):
        digest.update(",".join(map(str, cut(text))).encode() + b"\n")
    return digest.hexdigest()
