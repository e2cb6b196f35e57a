"""Small real encoders as GGUF files, and the same computed by numpy from the same weights.

The architecture is BERT's, the tokenizer WordPiece; the weights are random, from a seed. numpy
knows nothing of llama.cpp: what both agree on is what the architecture says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

from tests.support.gguf_models import finished

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ("the", "fox", "jump", "tank", "model", "memory", "water", "fire", "red", "blue", "how")
PIECES = ("ing", "ed", "er", "un")

Weights = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Encoder:
    """How large it is, and what it has."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    feed_forward: int = 128
    context: int = 128
    pooling: gguf.PoolingType | None = gguf.PoolingType.MEAN
    has_head: bool = False
    """Whether it is a cross-encoder: a dense layer, tanh and a score on top of the first token."""
    labels: tuple[str, ...] = ()
    broken: bool = False
    """Whether a weight is no number."""
    seed: int = 7
    vocabulary: tuple[str, ...] = field(
        default=(
            *SPECIAL,
            *LETTERS,
            *(f"##{letter}" for letter in LETTERS),
            *WORDS,
            *(f"##{piece}" for piece in PIECES),
            ".",
            ",",
            "?",
        )
    )


def write_encoder(path: Path, encoder: Encoder | None = None) -> Path:
    """Write an encoder and return its path."""
    encoder = encoder or Encoder()
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_context_length(encoder.context)
    writer.add_embedding_length(encoder.width)
    writer.add_block_count(encoder.layers)
    writer.add_feed_forward_length(encoder.feed_forward)
    writer.add_head_count(encoder.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)  # noqa: FBT003 - gguf has no keyword
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if encoder.pooling is not None:
        writer.add_pooling_type(encoder.pooling)
    if encoder.labels:
        writer.add_classifier_output_labels(encoder.labels)
    _add_tokenizer(writer, encoder)
    weights = weights_of(encoder)
    return finished(path, writer, list(weights.items()))


def _add_tokenizer(writer: gguf.GGUFWriter, encoder: Encoder) -> None:
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL)
    kinds += [gguf.TokenType.NORMAL] * (len(encoder.vocabulary) - len(SPECIAL))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list([_spelled(token) for token in encoder.vocabulary])
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bos_token_id(CLS)
    writer.add_sep_token_id(SEP)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_pad_token_id(PAD)
    writer.add_mask_token_id(MASK)


def _spelled(token: str) -> str:
    """Return a token as GGUF spells it: a mark before what begins a word, none before the rest."""
    if token in SPECIAL:
        return token
    return token.removeprefix("##") if token.startswith("##") else f"▁{token}"


def weights_of(encoder: Encoder) -> Weights:
    """Return an encoder's weights, the same each time."""
    random = np.random.default_rng(encoder.seed)

    def values(*shape: int, scale: float = 1.0) -> np.ndarray:
        drawn: np.ndarray = (random.standard_normal(shape) * scale).astype(np.float32)
        return drawn

    def matrix(rows: int, columns: int) -> np.ndarray:
        return values(rows, columns, scale=1 / np.sqrt(columns))

    width, forward = encoder.width, encoder.feed_forward
    found = {
        "token_embd.weight": values(len(encoder.vocabulary), width),
        "token_types.weight": values(2, width, scale=0.1),
        "position_embd.weight": values(encoder.context, width, scale=0.3),
        **_norm("token_embd_norm", values, width),
    }
    for layer in range(encoder.layers):
        prefix = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"{prefix}.{name}.weight"] = matrix(width, width)
            found[f"{prefix}.{name}.bias"] = values(width, scale=0.1)
        found |= _norm(f"{prefix}.attn_output_norm", values, width)
        found[f"{prefix}.ffn_up.weight"] = matrix(forward, width)
        found[f"{prefix}.ffn_up.bias"] = values(forward, scale=0.1)
        found[f"{prefix}.ffn_down.weight"] = matrix(width, forward)
        found[f"{prefix}.ffn_down.bias"] = values(width, scale=0.1)
        found |= _norm(f"{prefix}.layer_output_norm", values, width)
    if encoder.has_head:
        found["cls.weight"] = matrix(width, width)
        found["cls.bias"] = values(width, scale=0.1)
        found["cls.output.weight"] = matrix(max(1, len(encoder.labels)), width)
        found["cls.output.bias"] = values(max(1, len(encoder.labels)), scale=0.1)
    if encoder.broken:
        found["blk.0.ffn_up.bias"][:] = np.nan
    return found


def _norm(name: str, values: Callable[..., np.ndarray], width: int) -> Weights:
    return {
        f"{name}.weight": 1 + values(width, scale=0.1),
        f"{name}.bias": values(width, scale=0.1),
    }


# The same by numpy -------------------------------------------------------------------------------


def pieces(encoder: Encoder, text: str) -> list[int]:
    """Return the WordPiece tokens of lower-case ASCII text, without special ones."""
    known = {token: index for index, token in enumerate(encoder.vocabulary)}
    for mark in ".,?":
        text = text.replace(mark, f" {mark} ")
    return [token for word in text.split() for token in _word_pieces(known, word)]


def _word_pieces(known: dict[str, int], word: str) -> list[int]:
    tokens, at = [], 0
    while at < len(word):
        prefix = "##" if at else ""
        ends = (end for end in range(len(word), at, -1) if prefix + word[at:end] in known)
        end = next(ends, None)
        if end is None:
            return [UNKNOWN]
        tokens.append(known[prefix + word[at:end]])
        at = end
    return tokens


def hidden(encoder: Encoder, tokens: Sequence[int], second: int | None = None) -> np.ndarray:
    """Return the last layer's vectors, one for each token.

    From the place `second` on, tokens are of the second type.
    """
    weights = weights_of(encoder)
    x = weights["token_embd.weight"][list(tokens)]
    types = [int(second is not None and place >= second) for place in range(len(tokens))]
    x = x + weights["token_types.weight"][types] + weights["position_embd.weight"][: len(tokens)]
    x = _normed(x, weights, "token_embd_norm")
    for layer in range(encoder.layers):
        prefix = f"blk.{layer}"
        x = x + _attended(encoder, weights, prefix, x)
        x = _normed(x, weights, f"{prefix}.attn_output_norm")
        grown = _gelu(_linear(weights, f"{prefix}.ffn_up", x))
        x = x + _linear(weights, f"{prefix}.ffn_down", grown)
        x = _normed(x, weights, f"{prefix}.layer_output_norm")
    return x


def embedded(encoder: Encoder, text: str, pooling: str = "Mean") -> np.ndarray:
    """Return a text's vector at length 1."""
    vectors = hidden(encoder, [CLS, *pieces(encoder, text), SEP])
    pooled = {"Mean": vectors.mean(axis=0), "CLS": vectors[0], "Last": vectors[-1]}[pooling]
    unit: np.ndarray = pooled / np.linalg.norm(pooled)
    return unit


def score(encoder: Encoder, query: str, document: str, *, typed: bool = False) -> float:
    """Return the raw score of a pair; typed, its document's tokens are of the second type."""
    weights = weights_of(encoder)
    head = [CLS, *pieces(encoder, query), SEP]
    tokens = [*head, *pieces(encoder, document), SEP]
    first = hidden(encoder, tokens, len(head) if typed else None)[0]
    return float(_linear(weights, "cls.output", np.tanh(_linear(weights, "cls", first)))[0])


def _linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return result


def _normed(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    result: np.ndarray = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return result


def _gelu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return result


def _attended(encoder: Encoder, weights: Weights, prefix: str, x: np.ndarray) -> np.ndarray:
    heads, size = encoder.heads, encoder.width // encoder.heads

    def split(name: str) -> np.ndarray:
        return _linear(weights, f"{prefix}.{name}", x).reshape(len(x), heads, size).swapaxes(0, 1)

    query, key, value = split("attn_q"), split("attn_k"), split("attn_v")
    logits = query @ key.swapaxes(1, 2) / np.sqrt(size)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    joined = (shares @ value).swapaxes(0, 1).reshape(len(x), encoder.width)
    return _linear(weights, f"{prefix}.attn_output", joined)
