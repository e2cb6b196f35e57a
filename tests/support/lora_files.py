"""LoRA adapters as GGUF files: random, of small rank, for any model file."""

from pathlib import Path

import gguf
import numpy as np

ALPHA = 8.0
TARGETS = ("attn_q", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""Matrices of each layer that an adapter changes."""


def write_adapter(
    path: Path,
    model: Path,
    *,
    seed: int = 1,
    rank: int = 4,
    strength: float = 1.0,
    architecture: str | None = None,
    widen: int = 0,
    invocation: tuple[int, ...] = (),
) -> Path:
    """Write an adapter for a model and return its path.

    `strength` is how much it adds to a matrix, as a share of a random matrix of the same shape.
    `architecture`, `widen` and `invocation` make adapters that do not fit: of another
    architecture, for wider matrices, or one that some tokens switch on.
    """
    reader = gguf.GGUFReader(str(model))
    own = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(str(path), architecture or own)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    if invocation:
        kind = gguf.GGUFValueType
        key = "adapter.alora.invocation_tokens"
        writer.add_key_value(key, list(invocation), kind.ARRAY, sub_type=kind.UINT32)
    random = np.random.default_rng(seed)
    for tensor in reader.tensors:
        if not any(f".{target}.weight" in tensor.name for target in TARGETS):
            continue
        columns, rows = (int(n) + widen for n in tensor.shape[:2])
        # B·A times alpha/rank has about the entries of a matrix drawn with deviation 1/√columns.
        scale = np.sqrt(strength * rank / ALPHA) / (columns * rank) ** 0.25
        for suffix, shape in (("lora_a", (rank, columns)), ("lora_b", (rows, rank))):
            values = random.standard_normal(shape) * scale
            writer.add_tensor(f"{tensor.name}.{suffix}", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
