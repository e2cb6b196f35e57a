"""The tokenizer: byte-level BPE with GPT-2's word split, which llama.cpp knows as `gpt-2`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .chat import SPECIAL_TOKENS
from .corpus import Entry
from .texts import corpus_texts

VOCABULARY_SIZE = 2048


def trained_tokenizer(entries: Iterable[Entry]) -> Tokenizer:
    """Return a tokenizer learnt from the corpus; the special tokens have the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus_texts(entries), trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer that an earlier run saved."""
    return Tokenizer.from_file(str(path))
