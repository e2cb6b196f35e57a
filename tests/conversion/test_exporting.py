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
