"""The small encoders of `encoder_models` as ONNX files, with the files that lie beside such.

The graph is written by hand, operator by operator, as no exporter is small enough for every test
run. numpy's forward pass in `encoder_models` is what both formats are held against.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.support.encoder_models import CLS, PAD, SEP, SPECIAL, UNKNOWN, Encoder, weights_of
from ullage_runtime.engines.onnx.conversion.quantising import quantise

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 20
_TABLES = ("token", "position")


def write_onnx(
    folder: Path,
    encoder: Encoder | None = None,
    *,
    name: str = "model.onnx",
    pooling: str | None = None,
    external: bool = False,
    vocabulary: Sequence[str] = (),
    heads: bool = False,
) -> Path:
    """Write an encoder with its files into a folder and return the folder.

    `pooling` is what sentence-transformers calls the way to pool, such as `cls_token`. `vocabulary`
    is the tokenizer's, if it is another one than the encoder's. With `heads` it is a model like
    BGE-M3, of `graph_with_heads`.
    """
    encoder = encoder or Encoder()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    model = graph_with_heads(encoder) if heads else graph_of(encoder)
    save(model, folder / name, external=external)
    tokenizer = tokenizer_of(vocabulary or encoder.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "config.json",
        model_type="bert",
        hidden_size=encoder.width,
        intermediate_size=encoder.feed_forward,
        num_attention_heads=encoder.heads,
        num_hidden_layers=encoder.layers,
        max_position_embeddings=encoder.context,
        pad_token_id=PAD,
    )
    if pooling is not None:
        write_json(folder / "1_Pooling" / "config.json", **{f"pooling_mode_{pooling}": True})
    return folder


def write_builds(folder: Path, encoder: Encoder | None = None) -> Path:
    """Write an encoder in 32, 16 and 8 bits, as repositories have them, and return the folder."""
    write_onnx(folder, encoder, name="onnx/model.onnx")
    whole = folder / "onnx" / "model.onnx"
    half = convert_float_to_float16(onnx.load(str(whole)), keep_io_types=True)
    save(half, folder / "onnx" / "model_fp16.onnx")
    quantise(whole, folder / "onnx" / "model_quantized.onnx")
    return folder


def write_json(path: Path, **content: Any) -> None:
    """Write an object as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save(model: onnx.ModelProto, path: Path, *, external: bool = False) -> None:
    """Write a model, its weights in a file beside it if that is wanted."""
    if external:
        onnx.save_model(
            model,
            str(path),
            save_as_external_data=True,
            location=f"{path.name}_data",
            size_threshold=128,
        )
    else:
        path.write_bytes(model.SerializeToString())


def tokenizer_of(vocabulary: Sequence[str]) -> Tokenizer:
    """Return a WordPiece tokenizer, saved as after a training run: it cuts and fills up."""
    known = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8, pad_id=PAD, pad_token=SPECIAL[PAD])
    assert tokenizer.token_to_id("[UNK]") == UNKNOWN
    return tokenizer


class Graph:
    """A graph as it grows: operators, and the numbers they work with."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return its output's name."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def number(self, name: str, values: Any) -> str:
        """Add numbers and return their name."""
        self.numbers[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def model(self, *outputs: tuple[str, str, Sequence[Any]]) -> onnx.ModelProto:
        """Return the model; each output has a name, what gives it, and its shape."""
        for name, source, _ in outputs:
            self.nodes.append(helper.make_node("Identity", [source], [name]))
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(i, TensorProto.INT64, ["texts", "n"]) for i in INPUTS],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, _, s in outputs],
            list(self.numbers.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def graph_of(encoder: Encoder) -> onnx.ModelProto:
    """Return an encoder as a model that gives the vectors of tokens, or its head's scores."""
    graph, x = _encoded(encoder)
    if not encoder.has_head:
        return graph.model(("last_hidden_state", x, ["texts", "n", encoder.width]))
    scores = _linear(
        graph, graph.add("Tanh", _linear(graph, _first(graph, x), "cls")), "cls.output"
    )
    return graph.model(("logits", scores, ["texts", max(1, len(encoder.labels))]))


def head_weights(encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of the sparse and of the ColBERT head, to be multiplied from the right.

    A token's vector has half the width of a text's.
    """
    random = np.random.default_rng(encoder.seed + 1)
    drawn = random.standard_normal((encoder.width, 1 + encoder.width // 2)).astype(np.float32)
    return drawn[:, :1], drawn[:, 1:]


def graph_with_heads(encoder: Encoder) -> onnx.ModelProto:
    """Return an encoder as a model that gives BGE-M3's three outputs: of CLS, and of each token."""
    graph, x = _encoded(encoder)
    sparse, colbert = head_weights(encoder)
    weights = graph.add("Relu", graph.add("MatMul", x, graph.number("sparse", sparse)))
    vectors = graph.add("MatMul", x, graph.number("colbert", colbert))
    return graph.model(
        ("dense_vecs", _first(graph, x), ["texts", encoder.width]),
        ("sparse_vecs", weights, ["texts", "n", 1]),
        ("colbert_vecs", vectors, ["texts", "n", encoder.width // 2]),
    )


def _first(graph: Graph, x: str) -> str:
    return graph.add("Gather", x, graph.number("first", 0), axis=1)


def _encoded(encoder: Encoder) -> tuple[Graph, str]:
    """Return a graph and what in it gives the vectors of tokens."""
    graph = Graph()
    for name, values in weights_of(encoder).items():
        graph.number(name, values if name.startswith(_TABLES) else values.T)
    x = _embedded(graph)
    one, far = graph.number("one", np.float32(1)), graph.number("far", np.float32(-1e9))
    absent = graph.add("Sub", one, graph.add("Cast", "attention_mask", to=TensorProto.FLOAT))
    mask = graph.add("Unsqueeze", graph.add("Mul", absent, far), graph.number("axes", [1, 2]))
    for layer in range(encoder.layers):
        prefix = f"blk.{layer}"
        attended = _attended(graph, encoder, prefix, x, mask)
        x = _normed(graph, graph.add("Add", x, attended), f"{prefix}.attn_output_norm")
        grown = graph.add("Gelu", _linear(graph, x, f"{prefix}.ffn_up"), approximate="tanh")
        shrunk = _linear(graph, grown, f"{prefix}.ffn_down")
        x = _normed(graph, graph.add("Add", x, shrunk), f"{prefix}.layer_output_norm")
    return graph, x


def _embedded(graph: Graph) -> str:
    types = graph.add("Gather", "token_types.weight", "token_type_ids")
    count = graph.add("Gather", graph.add("Shape", "input_ids"), graph.number("second", 1))
    places = graph.add("Range", graph.number("zero", 0), count, "second")
    tokens = graph.add("Gather", "token_embd.weight", "input_ids")
    positions = graph.add("Gather", "position_embd.weight", places)
    x = graph.add("Add", graph.add("Add", tokens, types), positions)
    return _normed(graph, x, "token_embd_norm")


def _linear(graph: Graph, x: str, name: str) -> str:
    return graph.add("Add", graph.add("MatMul", x, f"{name}.weight"), f"{name}.bias")


def _normed(graph: Graph, x: str, name: str) -> str:
    return graph.add(
        "LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=1e-12
    )


def _attended(graph: Graph, encoder: Encoder, prefix: str, x: str, mask: str) -> str:
    size = encoder.width // encoder.heads
    split = graph.number("split", [0, 0, encoder.heads, size])

    def heads(name: str, order: list[int]) -> str:
        parts = graph.add("Reshape", _linear(graph, x, f"{prefix}.{name}"), split)
        return graph.add("Transpose", parts, perm=order)

    query, key = heads("attn_q", [0, 2, 1, 3]), heads("attn_k", [0, 2, 3, 1])
    scale = graph.number("scale", np.float32(1 / np.sqrt(size)))
    logits = graph.add("Mul", graph.add("MatMul", query, key), scale)
    shares = graph.add("Softmax", graph.add("Add", logits, mask), axis=-1)
    mixed = graph.add("MatMul", shares, heads("attn_v", [0, 2, 1, 3]))
    joined = graph.add(
        "Reshape",
        graph.add("Transpose", mixed, perm=[0, 2, 1, 3]),
        graph.number("joined", [0, 0, encoder.width]),
    )
    return _linear(graph, joined, f"{prefix}.attn_output")
