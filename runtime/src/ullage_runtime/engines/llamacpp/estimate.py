"""What a load will take, in the engine's own arithmetic.

A dry run (`no_alloc`) builds model and context without their memory and logs the sizes it would
allocate. Where a build does not log them, the key-value cache follows from the header and the
compute buffers from a bound on the largest of them, the logits.
"""

import os
import re
from collections.abc import Iterable
from typing import Final

from ullage_runtime.core.domain import EngineSpec, Footprint
from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.engines.llamacpp.adapters import adapter_bytes
from ullage_runtime.engines.llamacpp.header import Header
from ullage_runtime.engines.llamacpp.library import Library, row_bytes
from ullage_runtime.engines.llamacpp.model import (
    BATCH,
    CACHE_TYPES,
    DEFAULT_CONTEXT,
    Model,
)
from ullage_runtime.engines.llamacpp.parts import read_model
from ullage_runtime.engines.llamacpp.purposes import judges
from ullage_runtime.engines.procfs import proportional_set_size

_MIB: Final = 1 << 20
_F32_BYTES: Final = 4
_CACHE = re.compile(r"\bsize = +([\d.]+) MiB \( *\d+ cells")
_COMPUTE = re.compile(r"(?:compute|output) buffer size = +([\d.]+) MiB")


def estimate(library: Library, spec: EngineSpec) -> Footprint:
    """Return what loading a file would take; raises LoadError for a file that cannot be loaded."""
    header, adapters = read_headers(spec)
    model = Model(library, spec, dry_run=True, judges=judges(header, spec.purpose))
    try:
        cache = sum_of(_CACHE, model.log_lines)
        compute = sum_of(_COMPUTE, model.log_lines)
        return Footprint(
            weights=(model.weight_bytes or header.tensor_bytes) + adapters,
            kv_cache=cache or _cache_bytes(model, header, CACHE_TYPES[spec.kv_cache_type]),
            compute=(compute or compute_bytes(model.vocabulary_size)) + output_bytes(model),
            # The process itself: interpreter, libraries and the vocabulary.
            overhead=proportional_set_size(os.getpid()),
        )
    finally:
        model.close()


def read_headers(spec: EngineSpec) -> tuple[Header, int]:
    """Return the model's header and the bytes of all adapters' tensors; raises LoadError."""
    if spec.precision is not PrecisionType.AUTO:
        raise invalid_model(
            f"engine.precision asks for {spec.precision}; a GGUF file is what it was written in: "
            "remove it, and name another file in model.uri, or make one with `ullage convert`"
        )
    header = read_model(spec.path, row_bytes)
    return header, sum(adapter_bytes(a, header.architecture, row_bytes) for a in spec.adapters)


def _cache_bytes(model: Model, header: Header, cache_type: int) -> int:
    return 0 if model.is_encoder else cache_bytes(header, model.context_length, cache_type)


def sum_of(pattern: re.Pattern[str], lines: Iterable[str]) -> int:
    """Return the sum, in bytes, of the MiB that a pattern finds in log lines."""
    return int(sum(float(m) for line in lines for m in pattern.findall(line)) * _MIB)


def cache_bytes(header: Header, context_length: int, cache_type: int) -> int:
    """Return the bytes of the key-value cache, by its type and the attention's own dimensions.

    Layers with a sliding window keep the whole context too: our contexts have `swa_full`, without
    which a cached prefix could not be gone back to.
    """
    heads = max(1, *header.of_layers("attention.head_count", 1))
    width = header.of_architecture("embedding_length") // heads
    key = header.of_architecture("attention.key_length", width)
    value = header.of_architecture("attention.value_length", width)
    rows = (
        (row_bytes(cache_type, count * key) or 0) + (row_bytes(cache_type, count * value) or 0)
        for count in header.of_layers("attention.head_count_kv", heads)
    )
    return sum(rows) * (context_length or DEFAULT_CONTEXT)


def output_bytes(model: Model) -> int:
    """Return the bytes of what a batch of texts comes to, which are taken with the first batch.

    A decoder computes logits of all tokens too, although nobody asks for them.
    """
    if not model.longest_text:
        return 0
    row = model.dimensions + (0 if model.is_encoder else model.vocabulary_size)
    return model.batch * row * _F32_BYTES


def compute_bytes(vocabulary: int) -> int:
    """Return a bound on the compute buffers: a batch's logits, twice."""
    return 2 * BATCH * vocabulary * _F32_BYTES
