"""Manifests are read as strictly as an API server reads them, and say where they are wrong."""

import json
import pathlib

import pytest

from tests.support.processes import manifest
from ullage_api.profile import PoolProfile
from ullage_runtime.local import (
    ManifestError,
    local_document,
    local_profile,
    read_manifests,
    read_profile,
)


def problems_of(path: pathlib.Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ManifestError) as found:
        read_manifests([path])
    return [line.replace(f"{path}:", "") for line in found.value.lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spec: [", "1: expected the node content, but found '<stream end>'"),
        ("- a\n- b\n", "1: a manifest must be a mapping with apiVersion, kind and spec"),
        (
            "apiVersion: ullage.dev/v1alpha1\nkind: ModelRoute\n",
            "2: ModelRoute of ullage.dev/v1alpha1 cannot be run; expected ModelDeployment or",
        ),
        (
            manifest("chat", "file:x.gguf", taks="Chat"),
            "4: unknown field spec.taks; did you mean task?",
        ),
        (
            manifest("chat", "file:x.gguf", model={"url": "file:x.gguf"}),
            "4: unknown field spec.model.url; did you mean uri?",
        ),
        (manifest("chat", "ftp://x"), "4: model.uri must begin with file:"),
        (manifest("Chat", "file:x.gguf"), "3: metadata.name must be at most 40 lower-case"),
        (manifest("chat", "file:x.gguf", replicas="3"), "4: spec.replicas: Input should be"),
        (manifest("chat", "file:x.gguf", replicas=99), "4: spec.replicas: Input should be less"),
        (manifest("chat", "file:x.gguf", task="Paint"), "4: spec.task: Input should be 'Chat'"),
        (manifest("chat", "file:x.gguf") + "spec: {}\n", "5: spec is there twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: pathlib.Path, text: str, expected: str
) -> None:
    assert any(line.startswith(expected) for line in problems_of(tmp_path / "m.yaml", text)), (
        problems_of(tmp_path / "m.yaml", text)
    )


def test_every_problem_is_said_at_once(tmp_path: pathlib.Path) -> None:
    text = manifest("A", "ftp://x") + "---\n" + manifest("b", "file:y.gguf", more=1)
    assert len(problems_of(tmp_path / "m.yaml", text)) == 3


def test_two_models_may_not_share_a_name(tmp_path: pathlib.Path) -> None:
    same = manifest("chat", "file:x.gguf")
    (line,) = problems_of(tmp_path / "m.yaml", f"{same}---\n{same}")
    assert "two ModelDeployments of this name" in line
    alias = manifest("other", "file:x.gguf", aliases=["chat"])
    (line,) = problems_of(tmp_path / "m.yaml", f"{same}---\n{alias}")
    assert "'chat' is already a name of model 'chat'" in line


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: pathlib.Path) -> None:
    binary = tmp_path / "model.gguf"
    binary.write_bytes(b"GGUF\xff\xfe\x00")
    with pytest.raises(ManifestError) as found:
        read_manifests([tmp_path / "none.yaml", binary])
    first, second = found.value.lines
    assert first.endswith("none.yaml: no such file or directory")
    assert "not a text file" in second


def test_objects_of_others_are_skipped_and_json_is_read(tmp_path: pathlib.Path) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n"
    (tmp_path / "a.yaml").write_text(service + "---\n" + manifest("chat", "file:x.gguf"))
    spec = {"pool": "default", "task": "Chat", "model": {"uri": "file:y.gguf"}}
    (tmp_path / "b.json").write_text(
        json.dumps(
            {
                "apiVersion": "ullage.dev/v1alpha1",
                "kind": "ModelDeployment",
                "metadata": {"name": "second"},
                "spec": spec,
            }
        )
    )
    found = read_manifests([tmp_path / "a.yaml", tmp_path / "b.json"])
    assert [r.metadata.name for r in found.resources] == ["chat", "second"]
    where = f"Service ({tmp_path / 'a.yaml'}:2)"
    assert found.skipped == (f"{where}: only kinds of Ullage run here",)


def test_files_may_lie_beside_the_manifest_and_in_its_models_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.yaml").write_text(manifest("chat", "file:x.gguf"))
    roots = local_profile(read_manifests([tmp_path / "m.yaml"])).runtime.file_roots
    assert {str(tmp_path), str(tmp_path / "models"), "/usr/share/ullage/models"} == set(roots)


@pytest.mark.parametrize(
    ("uris", "http", "private"),
    [
        (["file:x.gguf"], False, False),
        (["https://example.com/x.gguf"], False, False),
        (["http://example.com/x.gguf"], False, False),
        (["http://127.0.0.1:9000/x.gguf"], True, True),
        (["http://localhost/x.gguf", "https://example.com/y.gguf"], True, True),
        (["http://localhost/x.gguf", "http://example.com/y.gguf"], False, True),
    ],
)
def test_plain_http_is_for_this_machine_unless_asked_for(
    tmp_path: pathlib.Path, *, uris: list[str], http: bool, private: bool
) -> None:
    (tmp_path / "m.yaml").write_text(
        "---\n".join(manifest(f"m{i}", uri) for i, uri in enumerate(uris))
    )
    found = read_manifests([tmp_path / "m.yaml"])
    settings = local_profile(found).runtime
    assert (settings.allow_http, settings.allow_private_addresses) == (http, private)
    asked = local_profile(found, allow_http=True, allow_private_addresses=True).runtime
    assert asked.allow_http
    assert asked.allow_private_addresses


def test_suspended_and_unwanted_models_are_placed_nowhere(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "---\n".join(
            [
                manifest("asleep", "file:x.gguf", suspend=True),
                manifest("none", "file:x.gguf", replicas=0),
                manifest("awake", "file:x.gguf"),
            ]
        )
    )
    found = read_manifests([tmp_path / "m.yaml"])
    models = {m.name: m for m in local_document(found, local_profile(found)).models}
    assert {name: m.ordinals for name, m in models.items()} == {
        "asleep": (),
        "none": (),
        "awake": (0,),
    }
    assert models["asleep"].suspended
    assert models["none"].suspended


def test_a_profile_is_read_strictly(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("runtime: {memoryMaxPercent: 50}\n")
    assert read_profile(path).runtime.memory_max_percent == 50
    path.write_text("runtime:\n  memoryPercent: 50\n")
    with pytest.raises(ManifestError, match=r":2: unknown field runtime\.memoryPercent"):
        read_profile(path)
    path.write_text("runtime: {memoryMaxPercent: 500}\n")
    with pytest.raises(ManifestError, match=r"runtime\.memoryMaxPercent: Input should be less"):
        read_profile(path)


def test_a_given_profile_is_kept_but_for_what_this_machine_needs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m.yaml").write_text(manifest("chat", "file:x.gguf"))
    base = PoolProfile.model_validate(
        {"image": "x", "runtime": {"maxBodyBytes": 4096, "fileRoots": ["/models"]}}
    )
    profile = local_profile(read_manifests([tmp_path / "m.yaml"]), base)
    assert profile.runtime.max_body_bytes == 4096
    assert "/models" in profile.runtime.file_roots


EMBED = manifest("embed", "file:x.gguf", task="Embedding") + "---\n"


def collection(name: str, **spec: object) -> str:
    given = {"pool": "default", "embedding": {"modelDeployment": "embed"}, **spec}
    metadata = {"name": name}
    whole = {"apiVersion": "ullage.dev/v1alpha1", "kind": "VectorCollection"}
    return json.dumps({**whole, "metadata": metadata, "spec": given}) + "\n"


def test_collections_are_read_beside_their_models_and_are_in_the_document(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(EMBED + collection("notes", profile="FastQuery"))
    manifests = read_manifests([path])
    document = local_document(manifests, PoolProfile.model_validate({"image": "x"}))
    assert [each.name for each in document.models] == ["embed"]
    (notes,) = document.collections
    assert notes.name == "notes"
    assert notes.spec.profile == "FastQuery"
    assert manifests.pools == ("default",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            collection("notes", embedding={"modelDeployment": "other"}),
            "notes: embedding.modelDeployment 'other' is no model of pool 'default'; models that",
        ),
        (
            collection("notes", embedding={"modelDeployment": "chat"}) + "---\n"
            + manifest("chat", "file:x.gguf"),
            "notes: embedding.modelDeployment 'chat' is for Chat; its task must be Embedding",
        ),
        (collection("Notes"), "Notes: metadata.name must be at most 40 lower-case letters"),
        (collection("a") + "---\n" + collection("a"), "a: there are two VectorCollections of this"),
        (collection("a", store={"type": "Embedded", "url": "http://x"}), "a: store.url is for"),
        (collection("a", store={"type": "Qdrant"}), "a: store.url is needed for type Qdrant; add"),
        (collection("a", sprase="None"), "6: unknown field spec.sprase; did you mean sparse?"),
        (collection("a", profile="Fast"), "6: spec.profile: Input should be 'HighAccuracy'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_collection_is_said(
    tmp_path: pathlib.Path, text: str, expected: str
) -> None:
    lines = problems_of(tmp_path / "m.yaml", EMBED + text)
    assert any(line.startswith(expected) for line in lines), lines


JOBS = """\
apiVersion: ullage.dev/v1alpha1
kind: ModelDeployment
metadata: {name: embed}
spec: {pool: default, task: Embedding, model: {uri: "file:x.gguf"}}
---
apiVersion: ullage.dev/v1alpha1
kind: VectorCollection
metadata: {name: notes}
spec: {pool: default, profile: Balanced, embedding: {modelDeployment: embed}}
---
apiVersion: ullage.dev/v1alpha1
kind: ReindexJob
metadata: {name: notes-2}
spec: {collection: notes, suspend: false}
"""


def job_of(path: pathlib.Path, text: str) -> str:
    path.write_text(text)
    (job,) = read_manifests([path]).reindexes
    return job.metadata.uid


def test_a_job_is_another_one_only_when_something_else_is_wanted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.yaml"
    uid = job_of(path, JOBS)
    assert uid
    assert job_of(path, JOBS) == uid
    assert job_of(path, JOBS.replace("suspend: false", "suspend: true")) == uid
    assert job_of(path, JOBS.replace("Balanced", "FastQuery")) != uid
    assert job_of(path, JOBS.replace("suspend: false", "mode: Copy")) != uid


def test_a_job_of_a_collection_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    (problem,) = problems_of(
        tmp_path / "m.yaml", JOBS.replace("collection: notes", "collection: x")
    )
    assert problem == "notes-2: there is no VectorCollection 'x'; collections here: notes"
