"""`ullage convert`, as far as it goes without the exporters: ONNX made smaller, and refusals."""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.encoder_models import Encoder, embedded
from tests.support.gguf_models import write_model
from tests.support.onnx_models import write_json, write_onnx
from ullage_runtime.cli.commands import app
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.pooled import Ability, EmbedRequest
from ullage_runtime.engines.onnx.conversion.checking import EXACT, ROUNDED, Comparison
from ullage_runtime.engines.onnx.conversion.folders import ConversionError
from ullage_runtime.engines.worker.engine import WorkerEngine

runner = CliRunner()
ENCODER = Encoder(width=128, feed_forward=256)
TEXTS = ("the fox jumped.", "how un memory water?", "red blue fire " * 12)


def convert(source: pathlib.Path, target: pathlib.Path, *options: str) -> dict[str, object]:
    result = runner.invoke(app, ["convert", str(source), str(target), "--json", *options])
    assert result.exit_code == 0, result.stderr
    told: dict[str, object] = json.loads(result.stdout)
    return told


@pytest.mark.parametrize("weights", ["inside", "outside"])
async def test_an_encoder_in_8_bits_is_smaller_and_embeds_nearly_the_same(
    tmp_path: pathlib.Path, weights: str
) -> None:
    source = write_onnx(
        tmp_path / "source", ENCODER, pooling="cls_token", external=weights == "outside"
    )
    told = convert(source, tmp_path / "int8", "--precision", "int8")
    comparison = told["comparison"]
    assert isinstance(comparison, dict)
    assert 0.99 < comparison["least_cosine"] < 1
    assert told["target_bytes"] == sum(
        file.stat().st_size for file in (tmp_path / "int8").glob("model.onnx*")
    )
    assert 0 < float(str(told["target_bytes"])) / float(str(told["source_bytes"])) < 0.5
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        spec = EngineSpec(str(tmp_path / "int8"), purpose=Ability.EMBED, threads=1)
        await engine.load(spec)
        together = await engine.embed(EmbedRequest("r", TEXTS))
        for text, values in zip(TEXTS, together.values, strict=True):
            vector = np.frombuffer(values, dtype=np.float32)
            assert vector @ embedded(ENCODER, text, "CLS") > 0.99
            alone = await engine.embed(EmbedRequest("r", (text,)))
            beside = vector @ np.frombuffer(alone.values[0], dtype=np.float32)
            assert beside > 0.9999, "it does not depend on the texts beside it"
    finally:
        await engine.unload()


def test_a_cross_encoder_in_8_bits_scores_nearly_the_same(tmp_path: pathlib.Path) -> None:
    source = write_onnx(tmp_path / "source", replace(ENCODER, has_head=True))
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", architectures=["BertForSequenceClassification"], **config)
    told = convert(source / "model.onnx", tmp_path / "int8", "--precision", "int8")
    comparison = told["comparison"]
    assert isinstance(comparison, dict)
    assert 0 < comparison["score_difference"] < 0.05
    result = runner.invoke(app, ["inspect", str(tmp_path / "int8"), "--task", "Rerank", "--check"])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        ("tiny.gguf", [], "whose rounded weights no ONNX file can hold without loss"),
        ("onnx", [], "is ONNX already; --precision int8"),
        ("nowhere", [], "there is no folder"),
        ("empty", [], "holds no weights"),
        ("llama", [], "is a 'llama'; encoders are converted: bert, camembert"),
        ("broken", ["--precision", "int8"], "not close enough"),
    ],
)
def test_what_is_not_converted_is_refused_with_the_reason_and_leaves_nothing(
    tmp_path: pathlib.Path, source: str, options: list[str], why: str
) -> None:
    write_model(tmp_path / "tiny.gguf")
    write_onnx(tmp_path / "onnx")
    write_onnx(tmp_path / "broken", Encoder(broken=True))
    write_json(tmp_path / "empty" / "config.json", model_type="bert")
    write_json(tmp_path / "llama" / "config.json", model_type="llama")
    (tmp_path / "llama" / "model.safetensors").write_bytes(b"")
    before = set(tmp_path.iterdir())
    target = tmp_path / "target"
    result = runner.invoke(app, ["convert", str(tmp_path / source), str(target), *options])
    assert result.exit_code == 1
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_nothing_is_written_over(tmp_path: pathlib.Path) -> None:
    write_onnx(tmp_path / "onnx")
    (tmp_path / "target").mkdir()
    result = runner.invoke(
        app, ["convert", str(tmp_path / "onnx"), str(tmp_path / "target"), "--precision", "int8"]
    )
    assert result.exit_code == 1
    assert "is there already" in result.stderr


def test_numbers_that_are_not_close_or_no_numbers_are_refused() -> None:
    Comparison(3, least_cosine=0.99995).check(EXACT)
    Comparison(3, least_cosine=0.991).check(ROUNDED)
    Comparison(3, score_difference=0.04).check(ROUNDED)
    for comparison, limits in (
        (Comparison(3, least_cosine=0.991), EXACT),
        (Comparison(3, least_cosine=0.98), ROUNDED),
        (Comparison(3, least_cosine=float("nan")), ROUNDED),
        (Comparison(3, score_difference=0.06), ROUNDED),
        (Comparison(3, score_difference=float("nan")), ROUNDED),
    ):
        with pytest.raises(ConversionError, match="not close enough"):
            comparison.check(limits)
