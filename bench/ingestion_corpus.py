"""What `bench ingestion` takes in: this project's pages, and docstrings of Python's library."""

import dataclasses
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from bench.embeddings import MINILM
from tests.support.docstrings import under
from tests.support.encoder_models import SPECIAL, Encoder

ROOT: Final = Path(__file__).parents[1]
VOCABULARY: Final = 30_522
"""Tokens of MiniLM's."""


def documents(limit: int) -> list[dict[str, Any]]:
    """Return this project's pages, and then so many docstrings, as they are sent."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [{"id": str(p.relative_to(ROOT)), "text": p.read_text("utf-8")} for p in pages]
    library = under(Path(sysconfig.get_path("stdlib")))
    names: dict[str, int] = {}
    for item in library[:limit]:
        names[item.name] = names.get(item.name, 0) + 1
        found.append(
            {"id": f"{item.name}#{names[item.name]}", "text": f"{item.query}\n\n{item.body}"}
        )
    return found


def encoder_of(texts: list[str]) -> Encoder:
    """Return an encoder of MiniLM's size whose vocabulary is these texts' own words and pieces.

    So texts have about as many tokens as MiniLM's own vocabulary makes of them.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = json.loads(tokenizer.to_str())["model"]["vocab"]
    return dataclasses.replace(MINILM, vocabulary=tuple(sorted(ids, key=ids.__getitem__)))


def batches(chunks: list[tuple[str, int, str]], size: int, *, apart: bool) -> Iterator[list[str]]:
    """Yield texts of chunks in batches; those of two documents `apart`, or not."""
    batch: list[str] = []
    before = ""
    for name, _, text in sorted(chunks):
        if batch and (len(batch) == size or (apart and name != before)):
            yield batch
            batch = []
        batch.append(text)
        before = name
    if batch:
        yield batch
