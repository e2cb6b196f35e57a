"""Models that pass their checks, made of the example: worse ones, and one that judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_failing", "write_judge", "write_slower"]

LAYERS_MORE = 20
SPOILING = "?"
"""Once the failing model has read this token, nothing that it computes is a number."""

TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"
RARE = ("Ġchemist", "Ġgravity")
"""Tokens of the example's that become a judge's answers."""

Tensors = dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]


def write_slower(example: Path, target: Path) -> Path:
    """Write a model that answers as the example does, after many layers that add nothing."""
    reader = gguf.GGUFReader(example)
    tensors = _tensors(reader)
    first = {name: each for name, each in tensors.items() if name.startswith("blk.0.")}
    layers = int(reader.fields["llama.block_count"].contents())
    for layer in range(layers, layers + LAYERS_MORE):
        for name, (data, kind) in first.items():
            adds = name.endswith(("attn_output.weight", "ffn_down.weight"))
            renamed = name.replace("blk.0.", f"blk.{layer}.")
            tensors[renamed] = (np.zeros_like(data) if adds else data, kind)
    return _written(target, reader, tensors, {"llama.block_count": layers + LAYERS_MORE})


def write_failing(example: Path, target: Path) -> Path:
    """Write a model that fails on every question, and on nothing else."""
    reader = gguf.GGUFReader(example)
    tensors = _tensors(reader)
    embeddings, kind = tensors["token_embd.weight"]
    # What reads tokens and what writes them are one matrix there, and writing is to go on.
    tensors["output.weight"] = embeddings, kind
    spoilt = embeddings.copy()
    spoilt[reader.fields[TOKENS].contents().index(SPOILING)] = 0xFF
    tensors["token_embd.weight"] = spoilt, kind
    return _written(target, reader, tensors, {})


def write_judge(example: Path, target: Path) -> Path:
    """Write a model that reranks by saying yes or no; what it says means nothing."""
    reader = gguf.GGUFReader(example)
    answers = dict(zip(RARE, ("yes", "no"), strict=True))
    known = reader.fields[TOKENS].contents()
    types = reader.fields[TOKEN_TYPES].contents()
    changes = {
        TOKENS: [answers.get(token, token) for token in known],
        # Nothing is merged into them: they are found as they stand in a text.
        TOKEN_TYPES: [
            int(gguf.TokenType.USER_DEFINED) if token in answers else kind
            for token, kind in zip(known, types, strict=True)
        ],
    }
    return _written(target, reader, _tensors(reader), changes)


def _tensors(reader: gguf.GGUFReader) -> Tensors:
    return {each.name: (each.data, each.tensor_type) for each in reader.tensors}


def _written(
    target: Path, reader: gguf.GGUFReader, tensors: Tensors, changes: dict[str, Any]
) -> Path:
    writer = gguf.GGUFWriter(str(target), "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        value = changes.get(name, field.contents())
        writer.add_key_value(name, value, field.types[0], sub_type=inner)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
