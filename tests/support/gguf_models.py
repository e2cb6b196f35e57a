"""Tiny real GGUF files: a Llama architecture with random weights and a byte tokenizer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np

UNKNOWN, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
CHAT_TEMPLATE = "tokenizer.chat_template"
GUIDE = Path(__file__).parents[2] / "examples" / "models" / "guide-v1.gguf"

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message.role) }}{% endif %}"
    "[{{ message.role }}]{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the model is, and what it has."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 128
    context: int = 512
    extra_tokens: int = 0
    template: str | None = TEMPLATE
    chatml_tokens: bool = False
    infill_tokens: bool = False
    """Whether it has the markers of a gap's prefix, suffix and middle."""
    answer_tokens: bool = False
    """Whether `yes` and `no` are tokens."""
    quantized: bool = False
    """Whether matrices are Q8_0; their columns must then be multiples of 32."""
    printable: bool = False
    """Whether only printable ASCII is ever the likeliest token."""
    seed: int = 1


def write_model(path: Path, shape: Shape | None = None) -> Path:
    """Write a model and return its path."""
    shape = shape or Shape()
    writer, tokens = begun(path, "llama", shape)
    return finished(path, writer, weights_of(shape, tokens), quantized=shape.quantized)


def write_parts(path: Path, shape: Shape | None = None, *, tensors: int = 8) -> list[Path]:
    """Write a model in parts of so many tensors, the first with none, and return their paths."""
    shape = shape or Shape()
    writer = gguf.GGUFWriter(str(path), "llama", split_max_tensors=tensors, small_first_shard=True)
    entries = _entries(shape)
    _describe(writer, shape, [text for text, _ in entries], [int(kind) for _, kind in entries])
    finished(path, writer, weights_of(shape, len(entries)), quantized=shape.quantized)
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.gguf"))


def begun(path: Path, architecture: str, shape: Shape) -> tuple[gguf.GGUFWriter, int]:
    """Return a writer that holds everything but the tensors, and the vocabulary's size."""
    entries = _entries(shape)
    writer = gguf.GGUFWriter(str(path), architecture)
    _describe(writer, shape, [text for text, _ in entries], [int(kind) for _, kind in entries])
    return writer, len(entries)


def _describe(
    writer: gguf.GGUFWriter, shape: Shape, tokens: Sequence[str], types: Sequence[int]
) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    kind = gguf.LlamaFileType
    writer.add_file_type(kind.MOSTLY_Q8_0 if shape.quantized else kind.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(tokens))
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(list(types))
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)  # noqa: FBT003 - gguf has no keyword
    writer.add_add_space_prefix(False)  # noqa: FBT003 - likewise
    if shape.template is not None:
        writer.add_chat_template(shape.template)


def finished(
    path: Path,
    writer: gguf.GGUFWriter,
    weights: list[tuple[str, np.ndarray]],
    *,
    quantized: bool = False,
) -> Path:
    """Write the tensors, matrices as Q8_0 if wished, and close the file."""
    for name, array in weights:
        if quantized and array.ndim > 1:
            kept = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kept), raw_dtype=kept)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _entries(shape: Shape) -> list[tuple[str, gguf.TokenType]]:
    """Return the vocabulary: texts of tokens with their types."""
    kind = gguf.TokenType
    entries = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    entries += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
    if shape.chatml_tokens:
        entries += [("<|im_start|>", kind.CONTROL), ("<|im_end|>", kind.CONTROL)]
    if shape.infill_tokens:
        entries += [(f"<|fim_{part}|>", kind.CONTROL) for part in ("prefix", "suffix", "middle")]
    if shape.answer_tokens:
        entries += [("yes", kind.USER_DEFINED), ("no", kind.USER_DEFINED)]
    return entries + [(f"word{index}", kind.NORMAL) for index in range(shape.extra_tokens)]


def weights_of(shape: Shape, vocabulary: int) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(shape.seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        scale = 1.0 / np.sqrt(columns)
        values: np.ndarray = random.standard_normal((rows, columns)) * scale
        return values.astype(np.float32)

    width, forward = shape.width, shape.feed_forward
    ones = np.ones(width, dtype=np.float32)
    output = matrix(vocabulary, width) * 4
    # Never the tokens that end or mean nothing, so that a generation lasts as long as it is let.
    output[[UNKNOWN, BOS, EOS]] = 0
    if shape.printable:
        output[: FIRST_BYTE + ord(" ")] = 0
        output[FIRST_BYTE + ord("~") + 1 :] = 0
    weights = [
        ("token_embd.weight", matrix(vocabulary, width) * 8),
        ("output_norm.weight", ones),
        ("output.weight", output.astype(np.float32)),
    ]
    for layer in range(shape.layers):
        prefix = f"blk.{layer}"
        weights += [
            (f"{prefix}.attn_norm.weight", ones),
            (f"{prefix}.ffn_norm.weight", ones),
            (f"{prefix}.attn_q.weight", matrix(width, width)),
            (f"{prefix}.attn_k.weight", matrix(width, width)),
            (f"{prefix}.attn_v.weight", matrix(width, width)),
            (f"{prefix}.attn_output.weight", matrix(width, width)),
            (f"{prefix}.ffn_gate.weight", matrix(forward, width)),
            (f"{prefix}.ffn_up.weight", matrix(forward, width)),
            (f"{prefix}.ffn_down.weight", matrix(width, forward)),
        ]
    return weights


def with_template(source: Path, target: Path, template: str) -> Path:
    """Write a copy of a model with another chat template, and return its path."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(target), architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", CHAT_TEMPLATE}:
            continue
        inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def write_script(
    path: Path,
    pieces: Sequence[str],
    template: str = TEMPLATE,
    *,
    after: str = "]",
    control: Collection[str] = (),
) -> Path:
    """Write a model that says the pieces, one token each, after a prompt that ends with `after`.

    Its layers add nothing, embeddings tell tokens apart, and the output leads from each token to
    the next. Pieces must differ; those in `control` are control tokens.
    """
    first = FIRST_BYTE + 256
    width = -(-(first + len(pieces)) // 128) * 128
    shape = Shape(width=width, layers=1, heads=4, feed_forward=32, template=template, context=2048)
    tokens = [text for text, _ in _entries(shape)] + list(pieces)
    types = [int(kind) for _, kind in _entries(shape)]
    normal, special = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    types += [special if piece in control else normal for piece in pieces]
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, shape, tokens, types)
    embeddings = np.eye(len(tokens), width, dtype=np.float32)
    output = np.zeros((len(tokens), width), dtype=np.float32)
    chain = [FIRST_BYTE + ord(after), *range(first, len(tokens)), EOS]
    for token, following in pairwise(chain):
        output[following, token] = 4
    weights = {name: array * 0 for name, array in weights_of(shape, len(tokens))}
    ones = np.ones(width, dtype=np.float32)
    weights |= {name: ones for name in weights if name.endswith("norm.weight")}
    weights |= {"token_embd.weight": embeddings, "output.weight": output}
    return finished(path, writer, list(weights.items()))
