"""Tiny Llamas as the hub has them: random weights in safetensors, a tokenizer of bytes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN: Final = 128
LAYERS: Final = 2
HEADS: Final = 2
FORWARD: Final = 256
MARKERS: Final = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
TEMPLATE: Final = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "For each call return a json object within <tool_call></tool_call> tags:\n"
    '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n{% endif -%}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_llama(
    folder: Path,
    *,
    seed: int = 1,
    layers: int = LAYERS,
    positions: int = 512,
    words: Sequence[str] = (),
) -> None:
    """Write a model that vLLM loads: what it says is noise, and always the same.

    `words` are tokens beside those of bytes.
    """
    folder.mkdir(parents=True)
    size = _write_tokenizer(folder, words)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "hidden_size": HIDDEN,
        "intermediate_size": FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "vocab_size": size,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(size, layers, seed), folder / "model.safetensors")


def _weights(size: int, layers: int, seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (chance.standard_normal((rows, columns)) * 0.08).astype(np.float32)

    head = HIDDEN // HEADS
    found = {
        "model.embed_tokens.weight": matrix(size, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": matrix(size, HIDDEN),
    }
    for layer in range(layers):
        found |= {
            f"model.layers.{layer}.{name}": value
            for name, value in {
                "input_layernorm.weight": np.ones(HIDDEN, np.float32),
                "post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
                "self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
                "self_attn.k_proj.weight": matrix(head, HIDDEN),
                "self_attn.v_proj.weight": matrix(head, HIDDEN),
                "self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
                "mlp.gate_proj.weight": matrix(FORWARD, HIDDEN),
                "mlp.up_proj.weight": matrix(FORWARD, HIDDEN),
                "mlp.down_proj.weight": matrix(HIDDEN, FORWARD),
            }.items()
        }
    return found


def _write_tokenizer(folder: Path, further: Sequence[str]) -> int:
    """Write a tokenizer whose tokens are bytes, and return how many it has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: index for index, word in enumerate([*MARKERS, *alphabet, *further])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(MARKERS))
    tokenizer.add_tokens(list(further))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def write_adapter(folder: Path, *, rank: int = 4, seed: int = 7) -> None:
    """Write a LoRA adapter for such a model, in PEFT's form, that changes what it says."""
    folder.mkdir(parents=True)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 4 * rank,
        "target_modules": ["q_proj", "o_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    chance = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for module in ("q_proj", "o_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for part, shape in (("A", (rank, HIDDEN)), ("B", (HIDDEN, rank))):
                values = (chance.standard_normal(shape) * 0.3).astype(np.float32)
                tensors[f"{name}.lora_{part}.weight"] = values
    save_file(tensors, folder / "adapter_model.safetensors")


def spoil(folder: Path, name: str, value: float | None) -> None:
    """Fill one of a model's tensors with a value, or leave it out."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = np.full_like(tensors[name], value)
    save_file(tensors, path)
