"""Exporting: from transformers' weights of a Llama, Mistral or Qwen to a GGUF file.

Names, layouts and the file itself are the `gguf` package's. llama.cpp knows a tokenizer's way to
part words by a name that no file of transformers has: names are tried until llama.cpp makes the
same tokens of our texts as the tokenizer itself.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
import transformers

from ullage_runtime.engines.conversion import ConversionError, Precision
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.conversion.checking import LONGEST, TEXTS
from ullage_runtime.engines.llamacpp.library import Library
from ullage_runtime.engines.llamacpp.vocabulary import tokenized

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

_ARCHITECTURES: Final = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""What llama.cpp calls the families that are converted."""
_WORD_PARTINGS: Final = (
    "llama-bpe",
    "qwen2",
    "gpt-2",
    "smollm",
    "tekken",
    "deepseek-llm",
    "starcoder",
    "default",
)
"""llama.cpp's names for how byte-level tokenizers part words."""
_BYTES: Final = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class Spelling:
    """How llama.cpp is told to make tokens of texts."""

    model: str
    pre: str
    adds_space: bool | None = None


_PIECES: Final = tuple(Spelling("llama", "default", adds_space=adds) for adds in (True, False))
_BYTE_LEVEL: Final = tuple(Spelling("gpt2", name) for name in _WORD_PARTINGS)


@dataclass(frozen=True, slots=True)
class Original:
    """The source as PyTorch computes it."""

    model: Any
    tokenizer: Any

    @property
    def config(self) -> Any:
        """What transformers knows of the architecture."""
        return self.model.config

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, as they are computed with."""
        return sum(each.numel() * each.element_size() for each in self.model.parameters())

    def texts(self) -> list[list[int]]:
        """Return the tokens of the texts that are compared."""
        return [self.tokenizer(text).input_ids[:LONGEST] for text in TEXTS]

    def computed(self, texts: Sequence[Sequence[int]]) -> Any:
        """Return the logits after each token of each text, one behind the other."""
        with torch.inference_mode():
            rows = [self.model(torch.tensor([list(text)])).logits[0] for text in texts]
        return torch.cat(rows).numpy()


def opened(folder: Path) -> Original:
    """Return a source's model, ready to compute; raises ConversionError for another kind."""
    family = _family(folder)
    if family not in _ARCHITECTURES:
        raise ConversionError(
            f"{folder} is a {family[:64]!r}; to GGUF are converted: {', '.join(_ARCHITECTURES)}"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConversionError(f"{folder} holds no .safetensors")
    settings = {"local_files_only": True, "trust_remote_code": False}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), use_safetensors=True, dtype=torch.float32, **settings
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **settings)
    original = Original(model, tokenizer)
    _check(original)
    return original


def _family(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{folder / 'config.json'} cannot be read: {error}") from error


def _check(original: Original) -> None:
    """Raise ConversionError for what llama.cpp would compute otherwise, or not at all."""
    config, rotary = original.config, original.model.model.rotary_emb
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True):
        raise ConversionError(
            f"the model looks back {window} tokens only, which its architecture in GGUF cannot say"
        )
    plain = bool(np.allclose(_stretch(original), 1))
    if rotary.attention_scaling != 1 or (not plain and not _is_llama(original)):
        kind = config.rope_parameters.get("rope_type")
        raise ConversionError(
            f"the model's positions are stretched by {kind!r}, which is not converted"
        )


def _is_llama(original: Original) -> bool:
    return _ARCHITECTURES[original.config.model_type] is gguf.MODEL_ARCH.LLAMA


def _stretch(original: Original) -> Any:
    """Return by how much each frequency of the positions is divided, as Llama 3.1 does."""
    found = original.model.model.rotary_emb.inv_freq.numpy()
    steps = np.arange(len(found), dtype=np.float32) / len(found)
    return (original.config.rope_parameters["rope_theta"] ** -steps / found).astype(np.float32)


def export(library: Library, original: Original, target: Path, precision: Precision) -> None:
    """Write a source as a GGUF file in 32 or 16 bits."""
    spelling = _spelling(library, original, target)
    writer = _begun(original, target, spelling)
    half = precision is Precision.F16
    kinds = gguf.LlamaFileType
    writer.add_file_type(kinds.MOSTLY_F16 if half else kinds.ALL_F32)
    for name, values in _tensors(original):
        kept = np.float16 if half and values.ndim > 1 else np.float32
        writer.add_tensor(name, values.astype(kept))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _begun(original: Original, target: Path, spelling: Spelling) -> gguf.GGUFWriter:
    """Return a writer that holds everything but the weights."""
    config = original.config
    writer = gguf.GGUFWriter(str(target), gguf.MODEL_ARCH_NAMES[_ARCHITECTURES[config.model_type]])
    width, heads = config.hidden_size, config.num_attention_heads
    size = getattr(config, "head_dim", None) or width // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, original, spelling)
    return writer


def _tensors(original: Original) -> Iterator[tuple[str, Any]]:
    """Yield the weights by llama.cpp's names, in its layout."""
    config = original.config
    names = gguf.get_tensor_name_map(_ARCHITECTURES[config.model_type], config.num_hidden_layers)
    for name, tensor in original.model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # the table of tokens, once more
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ConversionError(f"llama.cpp's architecture has no place for {name}")
        values = tensor.numpy()
        if _is_llama(original):
            values = _by_pairs(name, values, config)
        yield found, values
    stretch = _stretch(original)
    if not np.allclose(stretch, 1):
        yield "rope_freqs.weight", stretch


def _by_pairs(name: str, values: Any, config: Any) -> Any:
    """Return the rows of a query or key as llama.cpp turns them: neighbours, not halves."""
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": config.num_key_value_heads,
    }.get(name.split(".")[-2])
    if heads is None:
        return values
    halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


# The tokenizer ------------------------------------------------------------------------------------


def _spelling(library: Library, original: Original, target: Path) -> Spelling:
    """Return how llama.cpp makes the tokenizer's tokens; raises ConversionError if it cannot."""
    described = _described(original)
    is_byte_level = "ByteLevel" in json.dumps(described.get("pre_tokenizer"))
    if not is_byte_level and not described["model"].get("byte_fallback"):
        raise ConversionError(
            f"the tokenizer is a {described['model'].get('type')} without bytes; byte-level BPE "
            "and SentencePiece's BPE are converted"
        )
    wanted = original.texts()
    for spelling in _BYTE_LEVEL if is_byte_level else _PIECES:
        trial = target.with_name("vocabulary.gguf")
        writer = _begun(original, trial, spelling)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        found = _tokens(library, trial, TEXTS)
        trial.unlink()
        if [each[:LONGEST] for each in found] == wanted:
            return spelling
    raise ConversionError(
        "llama.cpp makes other tokens of texts than the model's tokenizer, whatever it is told of "
        "how words are parted"
    )


def _tokens(library: Library, path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens that llama.cpp makes of texts with a file's vocabulary alone."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    with library.lines() as lines:
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ConversionError(
            f"llama.cpp cannot load the vocabulary: {'; '.join(lines[-2:])[:300]}"
        )
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    found = [tokenized(vocabulary, text) for text in texts]
    llama_cpp.llama_model_free(model)
    return found


def _add_tokenizer(writer: gguf.GGUFWriter, original: Original, spelling: Spelling) -> None:
    config, tokenizer = original.config, original.tokenizer
    described = _described(original)
    texts = {index: text for text, index in tokenizer.get_vocab().items()}
    special = {each["id"]: each["special"] for each in described.get("added_tokens", ())}
    tokens = [texts.get(index, f"[PAD{index}]") for index in range(config.vocab_size)]
    kinds = [
        _kind(index, text, special, spelling, tokenizer.unk_token_id)
        if index in texts
        else gguf.TokenType.UNUSED
        for index, text in enumerate(tokens)
    ]
    writer.add_tokenizer_model(spelling.model)
    writer.add_tokenizer_pre(spelling.pre)
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in kinds])
    if spelling.model == "llama":
        writer.add_token_scores(_scores(tokens, described["model"]["merges"]))
    if spelling.adds_space is not None:
        writer.add_add_space_prefix(spelling.adds_space)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        known = gguf.SpecialVocab(
            folder, load_merges=spelling.model == "gpt2", n_vocab=config.vocab_size
        )
    around = tokenizer("a").input_ids
    known.add_special_token = {
        "bos": around[0] == tokenizer.bos_token_id,
        "eos": around[-1] == tokenizer.eos_token_id,
    }
    known.chat_template = tokenizer.chat_template
    known.add_to_gguf(writer, quiet=True)


def _kind(
    index: int,
    text: str,
    special: Mapping[int, bool],
    spelling: Spelling,
    unknown: int | None,
) -> gguf.TokenType:
    if spelling.model == "llama" and index == unknown:
        return gguf.TokenType.UNKNOWN
    if index in special:
        return gguf.TokenType.CONTROL if special[index] else gguf.TokenType.USER_DEFINED
    if spelling.model == "llama" and text in _BYTES:
        return gguf.TokenType.BYTE
    return gguf.TokenType.NORMAL


def _scores(tokens: Sequence[str], merges: Sequence[Any]) -> list[float]:
    """Return a score for each token: what is merged first has the highest."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(parts), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _described(original: Original) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(original.tokenizer.backend_tokenizer.to_str())
    return found
