"""Folders of models: which there are, what each is for, and what is remembered of them."""

import json
import pathlib

import pytest

from tests.support.encoder_models import Encoder, write_encoder
from tests.support.gguf_models import Shape, write_model
from tests.support.llama_folders import write_llama
from tests.support.lora_files import write_adapter
from tests.support.onnx_models import write_json, write_onnx
from ullage_api.checks import name_conflicts, problems
from ullage_api.kinds.model_deployment import ModelDeployment, Task
from ullage_runtime.cli.folders import Folders
from ullage_runtime.local import Manifests, local_profile, read_manifests
from ullage_runtime.models.found import Findings, found_models


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a folder with a model of each kind, at several depths, and what is none."""
    models = tmp_path / "models"
    for name in ("chat", "deep/er", "plain", ".hidden", "enc", "rank"):
        (models / name).mkdir(parents=True)
    write_model(models / "chat" / "Talk-Q8_0.gguf")
    write_model(models / "deep" / "er" / "model.gguf", Shape(template=None))
    write_model(models / ".hidden" / "secret.gguf")
    write_encoder(models / "enc" / "enc.gguf", Encoder())
    write_encoder(models / "rank" / "rank.gguf", Encoder(has_head=True))
    write_onnx(models / "onnx-embed", name="onnx/model.onnx")
    write_onnx(models / "onnx-rank", Encoder(has_head=True))
    write_json(
        models / "onnx-rank" / "config.json", architectures=["BertForSequenceClassification"]
    )
    return models


def tasks(findings: Findings, folder: pathlib.Path) -> dict[str, Task]:
    return {str(found.path.relative_to(folder)): found.task for found in findings.models}


def resources(folder: pathlib.Path, cache: pathlib.Path, *files: pathlib.Path) -> Manifests:
    manifests = read_manifests(files) if files else Manifests((), ())
    return Folders((folder,), cache).added_to(manifests)


def test_every_model_is_found_at_any_depth_with_what_it_is_for(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert tasks(found_models(folder, tmp_path / "cache"), folder) == {
        "chat/Talk-Q8_0.gguf": Task.CHAT,
        "deep/er/model.gguf": Task.COMPLETION,
        "enc/enc.gguf": Task.EMBEDDING,
        "onnx-embed": Task.EMBEDDING,
        "onnx-rank": Task.RERANK,
        "rank/rank.gguf": Task.RERANK,
    }


def test_what_cannot_be_served_is_told_with_its_reason(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "broken.gguf").write_bytes(b"GGUF but no model")
    (folder / "empty.gguf").touch()
    (folder / "gone.gguf").symlink_to(folder / "nowhere")
    (folder / "page.gguf").write_text("<html>" + " " * 100)
    (folder / "readme.txt").write_text("not a model at all")
    base = write_model(tmp_path / "base.gguf")
    write_adapter(folder / "lora.gguf", base)
    for number in (1, 2):
        (folder / "several").mkdir(exist_ok=True)
        (folder / "several" / f"{number}.onnx").write_bytes(b"\x08\x07")
        (folder / f"split-0000{number}-of-00002.gguf").write_bytes(b"GGUF")
    findings = found_models(folder, tmp_path / "cache")
    assert findings.models == ()
    told = {line.partition(": ")[0].rpartition("/")[2]: line for line in findings.skipped}
    assert sorted(told) == [
        "broken.gguf",
        "empty.gguf",
        "gone.gguf",
        "lora.gguf",
        "page.gguf",
        "several",
        "split-00001-of-00002.gguf",
    ]
    assert "it is a LoRA adapter" in told["lora.gguf"]
    assert "name one of them: 1.onnx, 2.onnx" in told["several"]
    assert "no such file" in told["gone.gguf"].lower()


def test_weights_alone_are_told_with_what_makes_a_model_of_them(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "models"
    write_llama(folder / "llama")
    write_llama(folder / "encoder")
    config = json.loads((folder / "encoder" / "config.json").read_text())
    write_json(folder / "encoder" / "config.json", **{**config, "architectures": ["BertModel"]})
    write_llama(folder / "bare")
    (folder / "bare" / "tokenizer.json").unlink()
    for name, file in (
        ("pickled", "pytorch_model-00001-of-00002.bin"),
        ("tone", "adapter_model.safetensors"),
        ("encoder/2_Dense", "model.safetensors"),
        ("encoder/onnx", "notes.txt"),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_bytes(b"x")
    write_json(folder / "tone" / "adapter_config.json", r=8)
    # What a model was made of needs no word.
    write_llama(folder / "made")
    write_model(folder / "made" / "made.gguf")
    findings = found_models(folder, tmp_path / "cache")
    assert tasks(findings, folder) == {"made/made.gguf": Task.CHAT}
    told = {line.partition(": ")[0].rpartition("/")[2]: line for line in findings.skipped}
    assert sorted(told) == ["bare", "encoder", "llama", "pickled", "tone"]
    assert "LlamaForCausalLM in safetensors is served by vLLM" in told["llama"]
    assert "`ullage convert` makes an ONNX file of it" in told["encoder"]
    assert "there is no tokenizer.json" in told["bare"]
    assert "`ullage convert` makes ONNX of it" in told["pickled"]
    assert "LoRA adapter" in told["tone"]


def test_what_was_read_of_a_file_is_remembered_by_what_it_is_and_not_by_where_it_lies(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    cache = tmp_path / "cache"
    before = tasks(found_models(folder, cache), folder)
    entries = sorted((cache / "index" / "found").iterdir())
    assert len(entries) == 4, "one for each GGUF file"
    for entry in entries:
        if json.loads(entry.read_text())["task"] == "Chat":
            entry.write_text('{"task": "Completion"}')
        if json.loads(entry.read_text())["task"] == "Rerank":
            entry.write_text("damaged")
    (folder / "moved").mkdir()
    (folder / "chat" / "Talk-Q8_0.gguf").rename(folder / "moved" / "other.gguf")
    after = tasks(found_models(folder, cache), folder)
    assert after.pop("moved/other.gguf") is Task.COMPLETION, "as its entry says"
    assert after == {name: task for name, task in before.items() if "Talk" not in name}
    write_model(folder / "moved" / "other.gguf", Shape(layers=3))
    assert tasks(found_models(folder, cache), folder)["moved/other.gguf"] is Task.CHAT


def test_each_has_a_name_of_its_own_and_its_files_name_as_an_alias(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (folder / "other").mkdir()
    write_model(folder / "other" / "Talk-Q8_0.gguf")
    write_model(folder / "other" / "7b.gguf")
    found = resources(folder, tmp_path / "cache")
    assert [(r.metadata.name, r.spec.aliases) for r in found.resources] == [
        ("talk-q8-0", ["Talk-Q8_0"]),
        ("er", None),
        ("enc", None),
        ("onnx-embed", None),
        ("onnx-rank", None),
        ("model-7b", ["7b"]),
        ("other-talk-q8-0", None),
        ("rank", None),
    ]
    assert [p for r in found.resources for p in problems(r)] == []
    assert list(name_conflicts(list(found.resources))) == []
    assert str(folder) in local_profile(found).runtime.file_roots


def test_what_a_manifest_names_is_its_own(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    manifest = tmp_path / "m.yaml"
    wanted = ModelDeployment.model_validate(
        {
            "metadata": {"name": "enc"},
            "spec": {
                "pool": "mine",
                "task": "Chat",
                "model": {"uri": "file:chat/Talk-Q8_0.gguf"},
                "engine": {"contextLength": 128},
            },
        }
    )
    manifest.write_text(json.dumps(wanted.to_wire()))
    found = resources(folder, tmp_path / "cache", manifest).resources
    assert [r.metadata.name for r in found] == [
        "enc",
        "er",
        "enc-enc",
        "onnx-embed",
        "onnx-rank",
        "rank",
    ]
    assert {r.spec.pool for r in found} == {"mine"}
