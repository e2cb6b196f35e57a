"""Documents cut into chunks that a model can embed whole.

The splitter counts characters, which costs next to nothing; the model's own vocabulary then says
how long each chunk really is, and one that is too long is cut again.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ullage_api.kinds.vector_collection import (
    DEFAULT_CHUNK_TOKENS,
    DEFAULT_OVERLAP_TOKENS,
    ChunkingSettings,
    Splitter,
)
from ullage_api.names import short_hash
from ullage_runtime.retrieval.ingest.languages import grammar_of

if TYPE_CHECKING:
    import semantic_text_splitter as splitters

CHARACTERS: Final = 4
"""Characters of a token, about, to begin with."""
LEAST_CHARACTERS: Final = 16
"""Chunks are never cut below this: a text of which 16 characters are too long is no text."""

Lengths = Callable[[Sequence[str]], Awaitable[list[int]]]
"""Returns how many tokens each text has."""


class CannotSplit(Exception):  # noqa: N818 - named after what is so
    """A document has parts that cannot be made short enough."""


@dataclass(frozen=True, slots=True)
class Chunker:
    """How documents are cut, and a name for it that changes when it does."""

    splitter: Splitter = Splitter.TEXT
    max_tokens: int = DEFAULT_CHUNK_TOKENS
    overlap_tokens: int = DEFAULT_OVERLAP_TOKENS

    @classmethod
    def of(cls, settings: ChunkingSettings | None) -> "Chunker":
        """Return the chunker of a collection's settings."""
        given = settings or ChunkingSettings()
        max_tokens = given.max_tokens or DEFAULT_CHUNK_TOKENS
        overlap = given.overlap_tokens
        if overlap is None:
            overlap = min(DEFAULT_OVERLAP_TOKENS, max_tokens // 8)
        return cls(given.splitter or Splitter.TEXT, max_tokens, min(overlap, max_tokens // 2))

    @property
    def key(self) -> str:
        """What tells chunks of one chunker from those of another."""
        return short_hash([self.splitter.value, self.max_tokens, self.overlap_tokens])

    async def chunks(self, text: str, lengths: Lengths, name: str = "") -> list[str]:
        """Return a text's chunks, none longer than it may be; raises CannotSplit.

        `name` is the document's, whose end tells code's language.
        """
        done: list[str] = []
        # What is to be looked at yet, last first.
        pending = [
            (c, self.max_tokens)
            for c in reversed(self._cut(text, self.max_tokens, self.overlap_tokens, name))
        ]
        while pending:
            batch = pending[-64:]
            del pending[-64:]
            counts = await lengths([chunk for chunk, _ in reversed(batch)])
            for (chunk, budget), count in zip(reversed(batch), counts, strict=True):
                if count <= self.max_tokens:
                    done.append(chunk)
                else:
                    done.extend(await self._smaller(chunk, budget // 2, lengths, name))
        return done

    async def _smaller(self, chunk: str, budget: int, lengths: Lengths, name: str) -> list[str]:
        if budget * CHARACTERS < LEAST_CHARACTERS:
            raise CannotSplit(
                f"{chunk[:40]!r} has more than {self.max_tokens} tokens and cannot be cut further"
            )
        done: list[str] = []
        pieces = self._cut(chunk, budget, 0, name)
        for piece, count in zip(pieces, await lengths(pieces), strict=True):
            if count <= self.max_tokens:
                done.append(piece)
            else:
                done.extend(await self._smaller(piece, budget // 2, lengths, name))
        return done

    def _cut(self, text: str, tokens: int, overlap: int, name: str) -> list[str]:
        splitter = self._splitter(tokens * CHARACTERS, overlap * CHARACTERS, name)
        return [chunk for chunk in splitter.chunks(text) if chunk.strip()]

    def _splitter(
        self, capacity: int, overlap: int, name: str
    ) -> "splitters.TextSplitter | splitters.MarkdownSplitter | splitters.CodeSplitter":
        import semantic_text_splitter as splitters

        match self.splitter:
            case Splitter.TEXT:
                return splitters.TextSplitter(capacity, overlap)
            case Splitter.MARKDOWN:
                return splitters.MarkdownSplitter(capacity, overlap)
            case Splitter.CODE:
                grammar = grammar_of(name)
                if grammar is None:
                    return splitters.TextSplitter(capacity, overlap)
                # Whole lines stay whole: how far they are indented says what they belong to.
                return splitters.CodeSplitter(grammar, capacity, overlap, trim=False)
