"""What a load will take: weights, keys and values, and what a batch and the library take besides.

The bytes of keys and values are not vLLM's to choose, which would be a share of the device: they
follow from `contextLength`, as with every other engine, and vLLM is told how many they are.
"""

import math
from pathlib import Path
from typing import Final

from ullage_runtime.core.domain import CacheType, EngineSpec, Footprint
from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.pooled import Ability
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.engines.vllm.files import (
    WIDTHS,
    ModelFiles,
    adapter_rank,
    check_generates,
    find_files,
)
from ullage_runtime.engines.vllm.header import tensor_bytes

DEFAULT_CONTEXT: Final = 8192
"""Longest context when the spec names none and the model knows more."""
BATCH: Final = 2048
"""Tokens of a step at most: prompts are computed in pieces of it."""
BLOCK: Final = 128
"""Tokens of a block of the cache; vLLM's blocks on a GPU are smaller and divide it."""

_F32_BYTES: Final = 4
_PROCESS_BYTES: Final = 1040 << 20
"""Interpreter, PyTorch and vLLM without a model, on a CPU: measured (ADR 30)."""
_GPU_BYTES: Final = 2 << 30
"""CUDA's context, its libraries' workspaces and graphs; what is measured replaces it."""
_HIDDEN_AT_ONCE: Final = 6
_FORWARD_AT_ONCE: Final = 3
_LOGITS_AT_ONCE: Final = 4
_ADAPTER_COPIES: Final = 2
"""One in the slot that is computed with, one beside it."""


def estimate(spec: EngineSpec, *, on_gpu: bool) -> Footprint:
    """Return what loading a model would take of each of its devices; raises LoadError."""
    files = find_files(spec.path, spec.precision)
    check_spec(spec, files, on_gpu=on_gpu)
    stored = sum(tensor_bytes(path) for path in files.weights)
    width = 1 if files.is_quantised else WIDTHS[files.dtype] / WIDTHS[files.stored_dtype]
    weights = math.ceil(stored * width)
    adapters = sum(
        path.stat().st_size
        for adapter in spec.adapters
        for path in Path(adapter.path).glob("*.safetensors")
    )
    shards = spec.tensor_parallel
    return Footprint(
        weights=math.ceil((weights + _ADAPTER_COPIES * adapters) / shards),
        kv_cache=math.ceil(kv_bytes(spec, files) / shards),
        compute=compute_bytes(spec, files),
        overhead=_GPU_BYTES if on_gpu else _PROCESS_BYTES,
        among=shards,
    )


def check_spec(spec: EngineSpec, files: ModelFiles, *, on_gpu: bool) -> None:
    """Raise LoadError for settings that this engine does not have."""
    check_generates(files)
    if spec.purpose is Ability.EMBED:
        raise invalid_model(
            "a model in safetensors generates; task Embedding wants GGUF, or ONNX, which "
            "`ullage convert` makes of encoders"
        )
    if spec.purpose is Ability.RERANK:
        _check_asked(spec, files)
    if spec.kv_cache_type is not CacheType.F16:
        raise invalid_model(
            f"engine.kvCacheType {spec.kv_cache_type} is for GGUF; vLLM keeps keys and values as "
            "the model's numbers are: remove it"
        )
    if spec.precision is PrecisionType.INT8:
        raise invalid_model(
            "engine.precision int8 is for ONNX; vLLM computes in f32 or f16, or as a model's own "
            "quantisation says, if it has one: remove it, or name such a model"
        )
    if spec.gpu_layers != -1:
        raise invalid_model("engine.gpuLayers is for GGUF; vLLM has the whole model on its device")
    if spec.tensor_parallel > 1 and not on_gpu:
        raise invalid_model(
            f"engine.tensorParallel is {spec.tensor_parallel}, and this pod has no GPU to divide "
            "the model among; remove it"
        )
    for adapter in spec.adapters:
        adapter_rank(adapter)
    context_length(spec, files)


def _check_asked(spec: EngineSpec, files: ModelFiles) -> None:
    """Raise LoadError for what cannot be asked whether a document answers a query."""
    if files.chat_template is None:
        raise invalid_model(
            "the model has no chat template to be asked with, so it ranks nothing: task Rerank "
            "wants one that does, a cross-encoder in GGUF, or ONNX, which `ullage convert` makes"
        )
    if spec.adapters:
        raise invalid_model("adapters are for what generates; with task Rerank remove them")


def context_length(spec: EngineSpec, files: ModelFiles) -> int:
    """Return the tokens of the longest prompt with its answer; raises LoadError."""
    known = files.positions
    if spec.context_length is None:
        return min(known or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    if known and spec.context_length > known:
        raise invalid_model(
            f"engine.contextLength is {spec.context_length}; this model knows {known} positions"
        )
    return spec.context_length


def kv_bytes(spec: EngineSpec, files: ModelFiles) -> int:
    """Return the bytes of keys and values: those of one context, which all requests share.

    One block more is there that vLLM keeps for itself.
    """
    blocks = math.ceil(context_length(spec, files) / BLOCK) + 1
    return blocks * BLOCK * token_bytes(files)


def token_bytes(files: ModelFiles) -> int:
    """Return the bytes of one token's keys and values in all layers; raises LoadError."""
    layers = files.number("num_hidden_layers", "n_layer")
    heads = files.number("num_attention_heads", "n_head")
    hidden = files.number("hidden_size", "n_embd")
    if not (layers and heads and hidden):
        raise invalid_model(
            "config.json does not say num_hidden_layers, num_attention_heads and hidden_size, by "
            "which the memory of its keys and values is known"
        )
    width = WIDTHS[files.dtype]
    latent = files.number("kv_lora_rank")
    if latent:  # attention over a latent vector, of which there is one for all heads
        return layers * (latent + files.number("qk_rope_head_dim")) * width
    head = files.number("head_dim") or hidden // heads
    return (
        2
        * layers
        * files.number("num_key_value_heads", "num_attention_heads", "n_head")
        * (head * width)
    )


def compute_bytes(spec: EngineSpec, files: ModelFiles) -> int:
    """Return the bytes that the largest step takes: its activations and its rows of logits."""
    hidden = files.number("hidden_size", "n_embd")
    forward = files.number("intermediate_size") or 4 * hidden
    token = (_HIDDEN_AT_ONCE * hidden + _FORWARD_AT_ONCE * forward) * WIDTHS[files.dtype]
    logits = _LOGITS_AT_ONCE * spec.parallel * files.number("vocab_size") * _F32_BYTES
    return batch_tokens(spec, files) * token + logits


def batch_tokens(spec: EngineSpec, files: ModelFiles) -> int:
    """Return the tokens that a step computes at most."""
    return max(spec.parallel, min(BATCH, context_length(spec, files)))
