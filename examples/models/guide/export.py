"""Writing the model as GGUF: metadata, tokenizer, chat template, and Q8_0 weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from .chat import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS, START

LICENSE = "Apache-2.0"
DESCRIPTION = (
    "A toy-sized model that Ullage trains on its own questions and answers, for its demo and its "
    "tests. It knows about Ullage and little else."
)

_LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, revision: str) -> None:
    """Write the model to `path`. Matrices become Q8_0, norms stay F32; embeddings are tied."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, model, revision)
    _add_tokenizer(writer, tokenizer)
    for name, values in _tensors(model):
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, model: LlamaForCausalLM, revision: str) -> None:
    config = model.config
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"Ullage guide {revision}")
    writer.add_basename("guide")
    writer.add_version(revision)
    writer.add_description(DESCRIPTION)
    writer.add_license(LICENSE)
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL
            for token in tokens
        ]
    )
    writer.add_token_merges(_merges(tokenizer))
    writer.add_bos_token_id(tokenizer.token_to_id(START))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_eot_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(PAD))
    # The model has learnt to answer with and without the start token; without is the rule.
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _merges(tokenizer: Tokenizer) -> list[str]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _tensors(model: LlamaForCausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights under llama.cpp's names. There is no output matrix: it is the embedding."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    yield "token_embd.weight", weights["model.embed_tokens.weight"]
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _LAYER_TENSORS.items():
            values = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in heads:
                values = _interleaved(values, heads[theirs])
            yield f"blk.{layer}.{theirs}.weight", values
    yield "output_norm.weight", weights["model.norm.weight"]


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows in the order of llama.cpp's rotation, which pairs neighbours.

    transformers rotates the first half of a head against the second one.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
