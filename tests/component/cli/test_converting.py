"""`ullage convert`, as far as it goes without the exporters: ONNX made smaller, and refusals."""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.encoder_models import Encoder, embedded, write_encoder
from tests.support.gguf_models import GUIDE, write_model
from tests.support.onnx_models import write_json, write_onnx
from ullage_runtime.cli.commands import app
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.pooled import Ability, EmbedRequest
from ullage_runtime.engines.conversion import ConversionError
from ullage_runtime.engines.onnx.conversion.checking import EXACT, ROUNDED, Comparison
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
        ("onnx", ["--precision", "q4_0"], "ONNX is written in f32 or int8; q4_0 is for a .gguf"),
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


# GGUF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["f32", "f16", "q8_0", "q6_k", "q5_k_m", "q5_0", "q4_k_m"])
def test_a_gguf_file_is_written_anew_and_said_to_be_close(
    tmp_path: pathlib.Path, precision: str
) -> None:
    target = tmp_path / "target.gguf"
    told = convert(GUIDE, target, "--precision", precision)
    comparison = told["comparison"]
    assert isinstance(comparison, dict)
    print(precision, comparison)  # noqa: T201 - the figures are part of what is shown
    assert comparison["rows"] > 100
    assert comparison["mean_cosine"] > {"q4_k_m": 0.95, "q5_0": 0.98}.get(precision, 0.99)
    assert comparison["perplexity"] == pytest.approx(comparison["source_perplexity"], rel=0.2)
    assert told["target_bytes"] == target.stat().st_size
    smaller = precision.startswith(("q4", "q5", "q6"))
    assert (target.stat().st_size < 0.85 * GUIDE.stat().st_size) == smaller


def test_a_gguf_file_of_4_bits_loses_more_and_says_so(tmp_path: pathlib.Path) -> None:
    source = write_model(tmp_path / "source.gguf")
    told = convert(source, tmp_path / "small.gguf", "--precision", "q4_0")
    comparison = told["comparison"]
    assert isinstance(comparison, dict)
    assert 0.95 < comparison["mean_cosine"] < 0.9999
    checked = runner.invoke(app, ["inspect", str(tmp_path / "small.gguf"), "--check"])
    assert checked.exit_code == 0, checked.stderr
    shown = runner.invoke(
        app, ["convert", str(source), str(tmp_path / "other.gguf"), "--precision", "q4_0"]
    )
    assert "the likeliest token is the same after" in " ".join(shown.stdout.split())


def test_an_encoder_in_gguf_is_compared_by_its_vectors(tmp_path: pathlib.Path) -> None:
    source = write_encoder(tmp_path / "source.gguf", ENCODER)
    told = convert(source, tmp_path / "q8.gguf", "--precision", "q8_0")
    comparison = told["comparison"]
    assert isinstance(comparison, dict)
    assert (comparison["rows"], comparison["perplexity"]) == (5, None)
    assert 0.999 < comparison["least_cosine"] < 1


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        ("onnx", [], "no longer says what architecture its weights belong to"),
        ("onnx/model.onnx", [], "convert the model's original, in safetensors"),
        ("tiny.gguf", ["--precision", "int8"], "int8 is for a folder with ONNX"),
        ("nowhere", [], "there is no file or folder"),
        ("onnx/config.json", [], "is no GGUF file"),
        ("cut.gguf", [], "the file is truncated"),
        ("broken.gguf", ["--precision", "q8_0"], "llama.cpp cannot write broken.gguf as q8_0"),
    ],
)
def test_what_does_not_become_gguf_is_refused_with_the_reason_and_leaves_nothing(
    tmp_path: pathlib.Path, source: str, options: list[str], why: str
) -> None:
    write_onnx(tmp_path / "onnx")
    whole = write_model(tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    write_encoder(tmp_path / "broken.gguf", replace(ENCODER, broken=True))
    before = set(tmp_path.iterdir())
    target = tmp_path / "target.gguf"
    result = runner.invoke(app, ["convert", str(tmp_path / source), str(target), *options])
    assert result.exit_code == 1
    assert why in " ".join(result.stderr.split())
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
