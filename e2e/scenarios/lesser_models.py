"""Models that pass their checks and do worse than the example they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_failing", "write_slower"]

LAYERS_MORE = 20
SPOILING = "?"
"""Once the failing model has read this token, nothing that it computes is a number."""

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
    spoilt[reader.fields["tokenizer.ggml.tokens"].contents().index(SPOILING)] = 0xFF
    tensors["token_embd.weight"] = spoilt, kind
    return _written(target, reader, tensors, {})


def _tensors(reader: gguf.GGUFReader) -> Tensors:
    return {each.name: (each.data, each.tensor_type) for each in reader.tensors}


def _written(
    target: Path, reader: gguf.GGUFReader, tensors: Tensors, changes: dict[str, int]
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
