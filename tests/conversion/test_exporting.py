"""Encoders of transformers, exported by `ullage convert` and held against transformers itself."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from tests.support.encoder_models import Encoder
from tests.support.onnx_models import tokenizer_of
from ullage_runtime.cli.commands import app
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.pooled import Ability, EmbedRequest, RerankRequest
from ullage_runtime.engines.worker.engine import WorkerEngine

runner = CliRunner()
TEXTS = ("the fox jumped.", "how un memory water?", "red blue fire " * 12, "models")
SIZES: dict[str, Any] = {
    "vocab_size": len(Encoder().vocabulary),
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "pad_token_id": 0,
}


def bert(**settings: Any) -> Any:
    return transformers.BertConfig(**SIZES, max_position_embeddings=128, **settings)


def xlm_roberta(**settings: Any) -> Any:
    return transformers.XLMRobertaConfig(
        **SIZES, max_position_embeddings=130, type_vocab_size=1, **settings
    )


def saved(folder: pathlib.Path, model: Any, *, safe: bool = True) -> pathlib.Path:
    """Save a random model with a tokenizer; unsafely, as older releases of transformers did."""
    model.eval().save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    tokenizer_of(Encoder().vocabulary).save(str(folder / "tokenizer.json"))
    return folder


def convert(source: pathlib.Path, target: pathlib.Path, precision: str) -> dict[str, Any]:
    result = runner.invoke(
        app, ["convert", str(source), str(target), "--precision", precision, "--json"]
    )
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


async def embedded(folder: pathlib.Path) -> np.ndarray:
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        await engine.load(EngineSpec(str(folder), purpose=Ability.EMBED, threads=1))
        answer = await engine.embed(EmbedRequest("r", TEXTS))
        return np.stack([np.frombuffer(each, dtype=np.float32) for each in answer.values])
    finally:
        await engine.unload()


def wanted(model: Any) -> np.ndarray:
    """Return what transformers computes, pooled to the mean and of length 1."""
    tokenizer = tokenizer_of(Encoder().vocabulary)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            vectors = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        rows.append(torch.nn.functional.normalize(vectors[0].mean(dim=0), dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", [bert, xlm_roberta])
@pytest.mark.parametrize("weights", ["safetensors", "pickle"])
@pytest.mark.parametrize(("precision", "least"), [("f32", 0.9999), ("int8", 0.99)])
async def test_an_encoder_embeds_as_transformers_does(
    tmp_path: pathlib.Path, family: Any, weights: str, precision: str, least: float
) -> None:
    torch.manual_seed(5)
    model = transformers.AutoModel.from_config(family())
    source = saved(tmp_path / "source", model, safe=weights == "safetensors")
    told = convert(source, tmp_path / "target", precision)
    assert told["comparison"]["least_cosine"] > least
    found = await embedded(tmp_path / "target")
    assert (found * wanted(model)).sum(axis=1).min() > least


def saved_like_bge_m3(folder: pathlib.Path, model: Any) -> tuple[Any, Any]:
    """Save a random model as BGE-M3 is; return its sparse and its ColBERT layer."""
    saved(folder, model)
    layers = torch.nn.Linear(128, 1), torch.nn.Linear(128, 96)
    for layer, name in zip(layers, ("sparse", "colbert"), strict=True):
        torch.save(layer.state_dict(), folder / f"{name}_linear.pt")
    return layers


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-4), ("int8", 0.1)])
async def test_the_three_heads_of_bge_m3_are_those_of_torch(
    tmp_path: pathlib.Path, precision: str, tolerance: float
) -> None:
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(xlm_roberta())
    sparse, colbert = saved_like_bge_m3(tmp_path / "source", model)
    told = convert(tmp_path / "source", tmp_path / "target", precision)["comparison"]
    print(precision, told)  # noqa: T201 - the figures are part of what is shown
    assert told["least_cosine"] > 0.99
    assert told["least_token_cosine"] > 0.99
    assert told["weight_difference"] < tolerance

    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        spec = EngineSpec(str(tmp_path / "target"), purpose=Ability.EMBED, threads=1)
        loaded = await engine.load(spec)
        answer = await engine.embed(EmbedRequest("r", TEXTS, outputs=loaded.outputs))
    finally:
        await engine.unload()
    tokenizer = tokenizer_of(Encoder().vocabulary)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text, said in zip(TEXTS, answer.said, strict=True):
        ids = tokenizer.encode(text).ids
        with torch.inference_mode():
            vectors = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            weights = torch.relu(sparse(vectors))[:, 0].tolist()
            rows = torch.nn.functional.normalize(colbert(vectors[1:]), dim=-1).numpy()
        dense = torch.nn.functional.normalize(vectors[0], dim=0).numpy()
        assert np.frombuffer(said.values, np.float32) == pytest.approx(dense, abs=tolerance)
        wanted: dict[int, float] = {}
        for token, weight in zip(ids[1:-1], weights[1:-1], strict=True):
            if weight > 0:
                wanted[token] = max(weight, wanted.get(token, 0.0))
        assert said.sparse is not None
        assert said.colbert is not None
        tokens = np.frombuffer(said.sparse.tokens, np.int32).tolist()
        found = np.frombuffer(said.sparse.weights, np.float32).tolist()
        if precision == "f32":
            assert tokens == sorted(wanted)
        # Rounded, a weight may fall to 0 and another rise above it.
        given = dict(zip(tokens, found, strict=True))
        for token in {*given, *wanted}:
            assert given.get(token, 0) == pytest.approx(wanted.get(token, 0), abs=tolerance)
        token_rows = [np.frombuffer(row, np.float32) for row in said.colbert.rows]
        assert np.stack(token_rows) == pytest.approx(rows, abs=tolerance)


def test_a_head_that_is_no_linear_layer_is_refused_and_never_runs_code(
    tmp_path: pathlib.Path,
) -> None:
    source, mark = tmp_path / "source", tmp_path / "ran"
    saved_like_bge_m3(source, transformers.AutoModel.from_config(xlm_roberta()))
    (source / "sparse_linear.pt").write_bytes(
        b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'" + str(mark).encode() + b"'\ntRtR."
    )
    result = runner.invoke(app, ["convert", str(source), str(tmp_path / "target")])
    assert (result.exit_code, mark.exists(), (tmp_path / "target").exists()) == (1, False, False)
    assert "sparse_linear.pt is no linear layer" in result.stderr


async def test_a_cross_encoder_scores_as_transformers_does(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(6)
    model = transformers.AutoModelForSequenceClassification.from_config(bert(num_labels=1))
    told = convert(saved(tmp_path / "source", model), tmp_path / "target", "f32")
    assert told["comparison"]["score_difference"] < 1e-5
    tokenizer = tokenizer_of(Encoder().vocabulary)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        await engine.load(EngineSpec(str(tmp_path / "target"), purpose=Ability.RERANK, threads=1))
        answer = await engine.rerank(RerankRequest("r", "the fox", TEXTS))
    finally:
        await engine.unload()
    for text, values in zip(TEXTS, answer.values, strict=True):
        pair = tokenizer.encode("the fox", text)
        with torch.inference_mode():
            score = model(
                input_ids=torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])
            ).logits
        assert np.frombuffer(values, dtype=np.float32)[0] == pytest.approx(float(score), abs=1e-4)


def test_a_pickle_beside_safetensors_is_never_opened(tmp_path: pathlib.Path) -> None:
    source = saved(tmp_path / "source", transformers.AutoModel.from_config(bert()))
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + b"x'\ntR.")
    convert(source, tmp_path / "target", "f32")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: pathlib.Path) -> None:
    source = saved(tmp_path / "source", transformers.AutoModel.from_config(bert()), safe=False)
    mark = tmp_path / "ran"
    (source / "pytorch_model.bin").write_bytes(
        b"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'" + str(mark).encode() + b"'\ntRtR."
    )
    result = runner.invoke(app, ["convert", str(source), str(tmp_path / "target")])
    assert result.exit_code == 1
    assert not mark.exists()
    assert not (tmp_path / "target").exists()
