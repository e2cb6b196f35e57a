"""From a trained model to a file worth publishing: export, then prove that it is what it should be.

The proofs are hard: llama.cpp must cut every text of the corpus as the training tokenizer did, its
logits must agree with the trained model's, and enough questions must get exactly their answer.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from .chat import END, prompt
from .corpus import CORPUS_FOLDER, Entry
from .evaluation import Guide, Miss, score
from .export import write_gguf
from .texts import corpus_texts, digest_of_tokens
from .vocabulary import read_tokenizer

FOLDER = CORPUS_FOLDER.parent
RECORD_FOLDER = FOLDER / "training"
TOKENIZER_FILE = RECORD_FOLDER / "tokenizer.json"
MAX_BYTES = 8_000_000
MIN_COSINE = 0.999
MIN_EXACT = 0.95
MIN_HELD_OUT = 0.75


class NotGoodEnoughError(Exception):
    """The file fails one of the proofs and should not be published."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured on a file."""

    file: str
    sha256: str
    bytes: int
    min_logit_cosine: float
    texts_tokenised_alike: int
    tokens_sha256: str
    exact_questions: int
    exact_share: float
    held_out_questions: int
    held_out_share: float
    missed: tuple[Miss, ...]


def release(revision: str, entries: tuple[Entry, ...], model: LlamaForCausalLM) -> Proof:
    """Write `guide-<revision>.gguf`, measure it, record the figures, refuse what is too weak."""
    path = FOLDER / f"guide-{revision}.gguf"
    tokenizer = read_tokenizer(TOKENIZER_FILE)
    write_gguf(path, model, tokenizer, revision)
    proof = _measured(path, revision, entries, model, tokenizer)
    record = json.dumps(asdict(proof), indent=1) + "\n"
    (RECORD_FOLDER / f"proof-{revision}.json").write_text(record, encoding="utf-8")
    _write_digests()
    sys.stderr.write(
        f"{path.name}: {proof.bytes} bytes, cosine {proof.min_logit_cosine}, "
        f"exact {proof.exact_share:.1%}, held out {proof.held_out_share:.1%}\n"
    )
    _refuse_weak(proof)
    return proof


def _measured(
    path: Path,
    revision: str,
    entries: tuple[Entry, ...],
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
) -> Proof:
    guide = Guide(path, every_logit=True)
    cosine = _least_cosine(guide, revision, entries, model, tokenizer)
    texts = _same_tokens(guide, entries, tokenizer)
    exact = score(guide, [(e, q) for e in entries for q in e.questions], revision)
    held_out = score(guide, [(e, q) for e in entries for q in e.held_out], revision)
    guide.close()
    data = path.read_bytes()
    return Proof(
        file=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        min_logit_cosine=cosine,
        texts_tokenised_alike=texts,
        tokens_sha256=digest_of_tokens(
            entries, lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        ),
        exact_questions=exact.asked,
        exact_share=round(exact.share, 4),
        held_out_questions=held_out.asked,
        held_out_share=round(held_out.share, 4),
        missed=exact.missed + held_out.missed,
    )


def _same_tokens(guide: Guide, entries: tuple[Entry, ...], tokenizer: Tokenizer) -> int:
    """How many texts both tokenizers cut alike; raises at the first that they do not."""
    texts = list(dict.fromkeys(corpus_texts(entries)))
    for text in texts:
        if guide.tokens(text) != tokenizer.encode(text, add_special_tokens=False).ids:
            raise NotGoodEnoughError(f"llama.cpp cuts {text!r} into other tokens")
    return len(texts)


def _least_cosine(
    guide: Guide,
    revision: str,
    entries: tuple[Entry, ...],
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
) -> float:
    """Return the worst agreement of llama.cpp's logits with the trained model's."""
    least = 1.0
    for entry in entries[::12]:
        text = prompt(entry.questions[0]) + entry.answer(revision) + END
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        theirs = guide.logits(tokens)
        with torch.no_grad():
            ours = model(torch.tensor([tokens])).logits[0].double().numpy()
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        least = min(least, float(((ours * theirs).sum(axis=1) / norms).min()))
    return round(least, 6)


def _write_digests() -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(FOLDER.glob("guide-*.gguf"))
    ]
    (FOLDER / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _refuse_weak(proof: Proof) -> None:
    limits = (
        ("bytes", proof.bytes <= MAX_BYTES, MAX_BYTES),
        ("min_logit_cosine", proof.min_logit_cosine >= MIN_COSINE, MIN_COSINE),
        ("exact_share", proof.exact_share >= MIN_EXACT, MIN_EXACT),
        ("held_out_share", proof.held_out_share >= MIN_HELD_OUT, MIN_HELD_OUT),
    )
    for name, passed, limit in limits:
        if not passed:
            raise NotGoodEnoughError(f"{name} is {getattr(proof, name)}; the limit is {limit}")
