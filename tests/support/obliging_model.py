"""A model that does what a grammar asks and no more; its weights are written by hand.

Each byte leads to the next by a table: an answer ends as soon as it may, braces close, a number is
3, and a text is two characters that take three bytes each. Whoever constrains its answers gets the
shortest that fit, which is what tests of the constraints need; a model that was trained on prose
would go on until its context is full.
"""

import itertools
from pathlib import Path
from typing import Final

import numpy as np

from tests.support.gguf_models import EOS, FIRST_BYTE, Shape, begun, finished

TEXT: Final = "你こ"
NUMBER: Final = "3"

_WIDTH: Final = 320
_FORWARD: Final = 32
_CLOSING: Final = '}]"{[:,' + NUMBER
"""What is wanted after whatever it may follow, the first most."""
_FAR_ABOVE: Final = 40.0


def write_obliging_model(path: Path, context: int = 8192) -> Path:
    """Write the model and return its path."""
    shape = Shape(width=_WIDTH, layers=1, heads=4, feed_forward=_FORWARD, context=context)
    writer, tokens = begun(path, "llama", shape)
    ones, nothing = np.ones(_WIDTH, np.float32), np.zeros((_WIDTH, _WIDTH), np.float32)
    weights = [
        # Each token has a direction of its own, which the only layer leaves as it is.
        ("token_embd.weight", np.eye(tokens, _WIDTH, dtype=np.float32)),
        ("output_norm.weight", ones),
        # Normalised, a direction is as long as the root of their number.
        ("output.weight", (_table(tokens) / np.sqrt(_WIDTH)).astype(np.float32)),
        ("blk.0.attn_norm.weight", ones),
        ("blk.0.ffn_norm.weight", ones),
        *[(f"blk.0.attn_{name}.weight", nothing) for name in ("q", "k", "v", "output")],
        ("blk.0.ffn_gate.weight", nothing[:_FORWARD]),
        ("blk.0.ffn_up.weight", nothing[:_FORWARD]),
        ("blk.0.ffn_down.weight", nothing[:, :_FORWARD].copy()),
    ]
    return finished(path, writer, weights)


def _table(tokens: int) -> np.ndarray:
    """Return how much each token (row) is wanted after each other one (column)."""
    wanted = np.zeros((tokens, _WIDTH))
    wanted[EOS] = 30
    for rank, character in enumerate(_CLOSING):
        wanted[_byte(ord(character))] = 20 - rank
    wanted[[_byte(ord(blank)) for blank in " \n\t"]] = -20
    chain = [ord('"'), *TEXT.encode(), ord('"')]
    for before, after in itertools.pairwise(chain):
        wanted[_byte(after), _byte(before)] = _FAR_ABOVE
    return wanted


def _byte(value: int) -> int:
    return FIRST_BYTE + value
