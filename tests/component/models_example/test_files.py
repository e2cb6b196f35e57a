from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import pytest

from examples.models.guide.chat import CHAT_TEMPLATE

REVISIONS = ["v1", "v2"]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_model_file_is_small_enough_for_a_repository(folder: Path, revision: str) -> None:
    assert (folder / f"guide-{revision}.gguf").stat().st_size <= 8_000_000


@pytest.mark.parametrize("revision", REVISIONS)
def test_digest_list_readme_and_proof_name_the_file_that_is_there(
    folder: Path, revision: str
) -> None:
    name = f"guide-{revision}.gguf"
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    sums = (folder / "SHA256SUMS").read_text()
    proof = json.loads((folder / "training" / f"proof-{revision}.json").read_text())
    assert f"{digest}  {name}\n" in sums
    assert proof["sha256"] == digest
    assert digest in (folder / "README.md").read_text()


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_header_tells_an_engine_all_it_needs(folder: Path, revision: str) -> None:
    reader = gguf.GGUFReader(folder / f"guide-{revision}.gguf")
    stated = {
        name: field.contents() for name, field in reader.fields.items() if "token" not in name
    }
    assert stated["general.architecture"] == "llama"
    assert stated["general.name"] == f"Ullage guide {revision}"
    assert stated["general.version"] == revision
    assert stated["general.license"] == "Apache-2.0"
    assert stated["llama.context_length"] == 1024
    template = reader.fields["tokenizer.chat_template"].contents()
    assert template == CHAT_TEMPLATE
    assert reader.fields["tokenizer.ggml.add_bos_token"].contents() is False


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_matrix_is_q8_0_and_every_norm_is_f32(folder: Path, revision: str) -> None:
    reader = gguf.GGUFReader(folder / f"guide-{revision}.gguf")
    matrices = {t.tensor_type for t in reader.tensors if len(t.shape) > 1}
    vectors = {t.tensor_type for t in reader.tensors if len(t.shape) == 1}
    assert matrices == {gguf.GGMLQuantizationType.Q8_0}
    assert vectors == {gguf.GGMLQuantizationType.F32}


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_record_of_the_training_belongs_to_the_corpus_as_it_stands(
    folder: Path, revision: str
) -> None:
    record = json.loads((folder / "training" / f"guide-{revision}.json").read_text())
    digest = hashlib.sha256()
    for path in sorted((folder / "corpus").glob("*.yaml")):
        digest.update(path.read_bytes())
    assert record["corpus_sha256"] == digest.hexdigest()
    assert record["final_loss"] < 0.05
