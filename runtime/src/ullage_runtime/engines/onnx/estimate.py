"""What a load will take: the weights, and what the largest batch leaves in onnxruntime's arena.

The weights are read off the file. What a batch takes follows from the encoder's widths, of which an
ONNX file itself says nothing that holds for all exporters; `config.json` does.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.core.domain import EngineSpec, Footprint
from ullage_runtime.engines.onnx.files import find_files
from ullage_runtime.engines.onnx.header import read_header
from ullage_runtime.engines.onnx.model import check_spec, longest_text
from ullage_runtime.engines.onnx.session import BATCH
from ullage_runtime.engines.procfs import proportional_set_size

_F32_BYTES: Final = 4
_HIDDEN: Final = 1024
_HEAD: Final = 64
_GROWN: Final = 4
"""Where the files do not say: the width of a large encoder, of its heads, and how much wider a
feed-forward layer is."""
_PLAUSIBLE: Final = 1 << 20
_LIBRARY_BYTES: Final = 12 << 20
"""What onnxruntime takes besides, once it computes: measured."""

_HIDDEN_AT_ONCE: Final = 6
"""Vectors of a token that live at once: those of a layer's beginning, of query, key and value."""
_FORWARD_AT_ONCE: Final = 2
_SCORES_AT_ONCE: Final = 4
"""What attention needs of them: exporters that guard against rows without any token take four."""
_COPIES_OF_HALF: Final = 2
"""A CPU computes 16 bits in 32: onnxruntime keeps such weights, and a copy of twice the size."""
_COMPUTED_AS_HALF: Final = 1.5
"""What it takes besides, as it turns numbers from one into the other around some operators."""
_VOCABULARY: Final = 14
"""How many times its file a tokenizer takes."""


def estimate(spec: EngineSpec) -> Footprint:
    """Return what loading a model would take; raises LoadError for one that cannot be loaded."""
    files = find_files(spec.path)
    check_spec(spec, files)
    header = read_header(files.model)
    compute = compute_bytes(files.config, longest_text(files, spec))
    return Footprint(
        weights=header.weight_bytes + _COPIES_OF_HALF * header.half_bytes,
        compute=math.ceil(compute * (_COMPUTED_AS_HALF if header.half_bytes else 1)),
        # The process itself: interpreter, libraries and the tokenizer.
        overhead=proportional_set_size(os.getpid())
        + _LIBRARY_BYTES
        + _VOCABULARY * files.tokenizer.stat().st_size,
    )


def compute_bytes(config: Mapping[str, Any], longest: int) -> int:
    """Return the bytes that the largest batch takes: a text of so many tokens, or a full one."""
    hidden = _width(config, "hidden_size", _HIDDEN)
    forward = _width(config, "intermediate_size", _GROWN * hidden)
    heads = _width(config, "num_attention_heads", max(1, hidden // _HEAD))
    token = _HIDDEN_AT_ONCE * hidden + _FORWARD_AT_ONCE * forward
    numbers = max(longest, BATCH) * token + _SCORES_AT_ONCE * heads * longest * longest
    return numbers * _F32_BYTES


def _width(config: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and 0 < value < _PLAUSIBLE else otherwise
