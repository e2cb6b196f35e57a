"""Quantising: llama.cpp's own quantiser, from any GGUF file to a smaller one."""

import ctypes
from pathlib import Path
from typing import Final

from ullage_runtime.engines.conversion import ConversionError, Precision
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.library import Library
from ullage_runtime.engines.llamacpp.model import LINE_LENGTH

FILE_TYPES: Final = {
    Precision.F32: llama_cpp.LLAMA_FTYPE_ALL_F32,
    Precision.F16: llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    Precision.Q8_0: llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    Precision.Q6_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    Precision.Q5_K_M: llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    Precision.Q5_0: llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_0,
    Precision.Q4_K_M: llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    Precision.Q4_0: llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}
"""How llama.cpp calls them."""


def quantise(library: Library, source: Path, target: Path, precision: Precision) -> None:
    """Write a GGUF file's weights anew; raises ConversionError when llama.cpp cannot."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = cpu_quota()
    params.ftype = FILE_TYPES[precision]
    # From 8 bits to 4 is a loss like any other: the comparison tells whether it is too much.
    params.allow_requantize = True
    with library.lines() as lines:
        failed = llama_cpp.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(params)
        )
    if failed:
        said = [line for line in lines if "error" in line.lower() or "fail" in line.lower()]
        words = "; ".join(line.strip()[:LINE_LENGTH] for line in (said or lines[-2:])[:3])
        raise ConversionError(f"llama.cpp cannot write {source.name} as {precision}: {words}")
