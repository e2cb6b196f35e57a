"""`ullage inspect` on real models of each format."""

import json
import pathlib

import pytest
from typer.testing import CliRunner

from tests.support.encoder_models import Encoder, write_encoder
from tests.support.gguf_models import write_model
from tests.support.onnx_models import write_onnx
from ullage_runtime.cli.commands import app

runner = CliRunner()


@pytest.fixture
def models(tmp_path: pathlib.Path) -> pathlib.Path:
    write_model(tmp_path / "tiny.gguf")
    write_encoder(tmp_path / "encoder.gguf")
    write_onnx(tmp_path / "encoder")
    write_onnx(tmp_path / "ranker", Encoder(has_head=True))
    write_onnx(tmp_path / "broken", Encoder(broken=True))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("tiny.gguf", [], {"format": "GGUF", "engine": "LlamaCpp", "task": "Chat"}),
        ("encoder.gguf", ["--task", "Embedding"], {"format": "GGUF", "task": "Embedding"}),
        ("encoder", [], {"format": "ONNX", "engine": "ONNXRuntime", "task": "Embedding"}),
        ("encoder/model.onnx", [], {"format": "ONNX", "task": "Embedding"}),
        ("ranker", ["--task", "Rerank"], {"format": "ONNX", "task": "Rerank"}),
    ],
)
def test_a_model_is_what_its_file_says_and_works_when_it_is_checked(
    models: pathlib.Path, name: str, options: list[str], wanted: dict[str, str]
) -> None:
    path = str(models / name)
    told = json.loads(runner.invoke(app, ["inspect", path, "--json", *options]).stdout)
    assert {key: told[key] for key in wanted} == wanted
    assert told["needed_bytes"] == sum(told["needs"].values())
    assert told["loaded"] is None
    result = runner.invoke(app, ["inspect", path, "--check", "--json", *options])
    assert result.exit_code == 0, result.stderr
    checked = json.loads(result.stdout)
    assert checked["loaded"]["context_length"] > 0
    assert 0.5 < checked["resident_bytes"] / checked["needed_bytes"] < 1.5


def test_people_get_a_few_lines(models: pathlib.Path) -> None:
    result = runner.invoke(app, ["inspect", str(models / "encoder"), "--check"])
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "Model",
        "Format",
        "Task",
        "Needs",
        "Fits",
        "Checked",
    ]
    assert "bert, 128 tokens at once, vocabulary of 95, 64 dimensions" in lines[-1]


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("nowhere.gguf", [], "there is no file or folder"),
        ("encoder", ["--task", "Rerank", "--check"], "no cross-encoder"),
        ("encoder", ["--task", "Chat"], "its task is Embedding or Rerank"),
        ("broken", ["--check"], "cannot embed"),
        ("encoder/tokenizer.json", [], "not a model file that any engine here can load"),
    ],
)
def test_what_does_not_work_is_one_line_and_status_1(
    models: pathlib.Path, name: str, options: list[str], why: str
) -> None:
    result = runner.invoke(app, ["inspect", str(models / name), *options])
    assert result.exit_code == 1
    assert why in result.stderr
    assert "Traceback" not in result.stderr
