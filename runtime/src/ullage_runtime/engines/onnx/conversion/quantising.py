"""Quantising: weights in 8 bits, in blocks that have a scale each.

onnxruntime's dynamic quantisation has one scale for all activations of a batch: the worst cosine of
MiniLM's vectors was 0.95, and a text's vector depended on the texts beside it. In blocks the worst
is 0.996.
"""

import logging
from pathlib import Path
from typing import Final

import onnx
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

# The quantiser's module has everybody's lines written when it is imported.
logging.getLogger().setLevel(logging.WARNING)

BITS: Final = 8
BLOCK: Final = 64
_COMPUTED_IN_INT8: Final = 4
"""onnxruntime's `accuracy_level`: activations are rounded to 8 bits, in blocks too."""


def quantise(source: Path, target: Path) -> None:
    """Write a copy of an ONNX file with its matrices in 8 bits."""
    model = onnx.load(str(source))
    outside = any(source.parent.glob(f"{source.name}_data")) or any(
        source.parent.glob(f"{source.name}.data")
    )
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=True, accuracy_level=_COMPUTED_IN_INT8, bits=BITS
    )
    quantiser = MatMulNBitsQuantizer(model, algo_config=config)
    quantiser.process()
    onnx.save_model(
        quantiser.model.model,
        str(target),
        save_as_external_data=outside,
        location=f"{target.name}_data",
    )
