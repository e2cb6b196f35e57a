"""Tiny real GGUF files of architectures whose memory is not plain keys and values."""

from pathlib import Path

import gguf
import numpy as np

from tests.support.gguf_models import (
    BOS,
    EOS,
    TEMPLATE,
    UNKNOWN,
    Shape,
    begun,
    finished,
    weights_of,
)
from ullage_runtime.engines.pooled.asking import SYSTEM, USER

STATE, CONVOLUTION, RANK = 16, 4, 4

Weights = list[tuple[str, np.ndarray]]


class _Random:
    """Matrices of random weights."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        values: np.ndarray = self._random.standard_normal((rows, columns)) * scale
        scaled: np.ndarray = (values / np.sqrt(columns)).astype(np.float32)
        return scaled

    def embeddings(self, vocabulary: int, width: int) -> Weights:
        output = self.matrix(vocabulary, width, 4)
        output[[UNKNOWN, BOS, EOS]] = 0
        return [
            ("token_embd.weight", self.matrix(vocabulary, width, 8)),
            ("output_norm.weight", np.ones(width, dtype=np.float32)),
            ("output.weight", output),
        ]


def write_recurrent(path: Path, shape: Shape | None = None) -> Path:
    """Write a Mamba model, which keeps one state per sequence, and return its path."""
    shape = shape or Shape()
    writer, vocabulary = begun(path, "mamba", shape)
    inner = 2 * shape.width
    writer.add_ssm_conv_kernel(CONVOLUTION)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    random = _Random(shape.seed)
    weights = random.embeddings(vocabulary, shape.width)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        weights += [
            (f"{prefix}.attn_norm.weight", np.ones(shape.width, dtype=np.float32)),
            (f"{prefix}.ssm_in.weight", random.matrix(2 * inner, shape.width)),
            (f"{prefix}.ssm_conv1d.weight", random.matrix(inner, CONVOLUTION)),
            (f"{prefix}.ssm_conv1d.bias", np.zeros(inner, dtype=np.float32)),
            (f"{prefix}.ssm_x.weight", random.matrix(RANK + 2 * STATE, inner)),
            (f"{prefix}.ssm_dt.weight", random.matrix(inner, RANK)),
            (f"{prefix}.ssm_dt.bias", np.zeros(inner, dtype=np.float32)),
            (f"{prefix}.ssm_a", -np.ones((inner, STATE), dtype=np.float32)),
            (f"{prefix}.ssm_d", np.ones(inner, dtype=np.float32)),
            (f"{prefix}.ssm_out.weight", random.matrix(shape.width, inner)),
        ]
    return finished(path, writer, weights)


def write_windowed(path: Path, shape: Shape | None = None, window: int = 64) -> Path:
    """Write a Gemma 2 model, half of whose layers see a sliding window, and return its path."""
    shape = shape or Shape(width=256, heads=1)
    writer, vocabulary = begun(path, "gemma2", shape)
    head = shape.width // shape.heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_sliding_window(window)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    random = _Random(shape.seed)
    weights = [w for w in random.embeddings(vocabulary, shape.width) if w[0] != "output.weight"]
    ones = np.ones(shape.width, dtype=np.float32)
    width, forward = shape.width, shape.feed_forward
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        weights += [
            (f"{prefix}.{norm}.weight", ones)
            for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        ]
        weights += [
            (f"{prefix}.attn_{name}.weight", random.matrix(width, width))
            for name in ("q", "k", "v", "output")
        ]
        weights += [
            (f"{prefix}.ffn_gate.weight", random.matrix(forward, width)),
            (f"{prefix}.ffn_up.weight", random.matrix(forward, width)),
            (f"{prefix}.ffn_down.weight", random.matrix(width, forward)),
        ]
    return finished(path, writer, weights)


ASKED = f"<s>[system]{SYSTEM}[user]{USER}[assistant]"
"""What a judge is asked: the usual words in the tiny models' chat template."""


def write_judge(path: Path, *, head: bool = False, asked: str = ASKED) -> Path:
    """Write a Qwen 3 model whose vocabulary has `yes` and `no`, and return its path.

    With a head it is as llama.cpp's converter makes Qwen3-Reranker: the head is these words' part
    of what would choose the next word, and the file brings its text along.
    """
    shape = Shape(context=1024, answer_tokens=True, template=None if head else TEMPLATE)
    writer, vocabulary = begun(path, "qwen3", shape)
    weights = weights_of(shape, vocabulary)
    size = np.ones(shape.width // shape.heads, dtype=np.float32)
    for layer in range(shape.layers):
        weights += [(f"blk.{layer}.attn_{each}_norm.weight", size) for each in "qk"]
    if head:
        output = dict(weights)["output.weight"]
        weights.append(("cls.output.weight", output[-2:]))
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_chat_template([{"name": "rerank", "template": asked}])
    return finished(path, writer, weights)
