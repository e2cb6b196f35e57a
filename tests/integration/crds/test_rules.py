"""Every rule of the CRDs is kept by a real API server, in our words."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.cluster.cluster import Cluster
from tests.support.operators import MDEP, ROOT
from ullage_api.crdgen import KINDS, custom_resource_definition
from ullage_api.kinds.base import NAME_RULE
from ullage_api.kinds.index_overrides import (
    OVERSAMPLING_MESSAGE,
    QUANTILE_MESSAGE,
    QUANTIZATION_MESSAGE,
)
from ullage_api.kinds.model_source import SCHEME_NAMES, URI_FORMS
from ullage_api.kinds.reindex_job import COLLECTION_MESSAGE, FROZEN, frozen_message
from ullage_api.kinds.vector_collection import (
    ALIAS_MESSAGE,
    RERANK_MESSAGE,
    URL_MESSAGE,
    URL_NEEDED_MESSAGE,
    URL_UNUSED_MESSAGE,
)

NAMESPACE = "crd-rules"
TONE = {"name": "tone", "uri": "file:tone.gguf"}


@pytest.fixture(scope="module")
def crds(control_plane: Cluster) -> Iterator[Cluster]:
    """Give a cluster with our CRDs and a namespace."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        control_plane.apply(path.read_text())
    control_plane.kubectl("wait", "--for=condition=Established", f"crd/{MDEP}")
    control_plane.kubectl("create", "namespace", NAMESPACE)
    yield control_plane
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def manifest(name: str = "chat", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"pool": "default", "task": "Chat", "model": {"uri": "file:a.gguf"}, **spec},
    }


def refusal(cluster: Cluster, given: dict[str, Any]) -> str:
    answer = cluster.kubectl(
        "apply",
        "--dry-run=server",
        "-n",
        NAMESPACE,
        "-f",
        "-",
        input=json.dumps(given),
        check=False,
    )
    assert answer.returncode != 0, answer.stdout
    return str(answer.stderr)


ASTRAY = (
    "hf://owner",
    "hf://owner/repository@a@b",
    "s3://Bucket/a.gguf",
    "oci://registry.example.com",
    "oci://registry.example.com/Team/model:1",
    "oci://registry.example.com/team/model@sha256:12",
    "pvc://claim",
    "pvc://Claim/a.gguf",
)
"""Addresses of a known scheme in no form that it has."""


def of_form(field: str, uri: str) -> str:
    scheme = uri.split("/", maxsplit=1)[0] + "//"
    return f"{field} with {scheme} must be {URI_FORMS[scheme][1]}"


BAD: list[tuple[str, dict[str, Any]]] = [
    (
        f"model.uri must begin with {SCHEME_NAMES}",
        manifest(model={"uri": "ftp://example.com/a.gguf"}),
    ),
    *((of_form("model.uri", uri), manifest(model={"uri": uri})) for uri in ASTRAY),
    (
        "model.uri must not contain spaces; write them as %20",
        manifest(model={"uri": "file:a model.gguf"}),
    ),
    (
        "model.sha256 must be 64 lower-case hexadecimal digits",
        manifest(model={"uri": "file:a.gguf", "sha256": "A" * 64}),
    ),
    (
        (
            "serving.defaults.temperature must be a number from '0' to '2' with at most 4 "
            "decimals, such as '0.7'"
        ),
        manifest(serving={"defaults": {"temperature": "2.1"}}),
    ),
    (
        (
            "serving.defaults.topP must be a number above '0' and up to '1' with at most 4 "
            "decimals, such as '0.95'"
        ),
        manifest(serving={"defaults": {"topP": "0.0"}}),
    ),
    (
        "pool must be lower-case letters, digits and '-', beginning with a letter",
        manifest(pool="Not-A-Pool"),
    ),
    (
        "an alias must be letters, digits and any of . _ : / - in between",
        manifest(aliases=["-light"]),
    ),
    (
        (
            "metadata.name must be at most 40 lower-case letters, digits and '-', "
            "beginning with a letter"
        ),
        manifest("1st"),
    ),
    (
        "spec.aliases must not repeat metadata.name; remove it, the name always works",
        manifest(aliases=["chat"]),
    ),
    (
        (
            "engine.pooling and engine.instructions are for task Embedding; remove them, or change "
            "task"
        ),
        manifest(engine={"pooling": "Mean"}),
    ),
    (
        "rollout.validation.expect must have one of contains and equals",
        manifest(rollout={"validation": [{"prompt": "2+2=", "expect": {}}]}),
    ),
    (
        "rollout.validation.expect is for tasks Chat and Completion; remove it, or change task",
        manifest(
            task="Rerank",
            rollout={"validation": [{"prompt": "2+2=", "expect": {"contains": "4"}}]},
        ),
    ),
    (
        "serving.responseCache is for task Chat; remove it, or change task",
        manifest(task="Embedding", serving={"responseCache": {"ttlSeconds": 60}}),
    ),
    (
        "model.adapters are for tasks Chat and Completion; remove them, or change task",
        manifest(
            task="Rerank",
            model={"uri": "file:a.gguf", "adapters": [{"name": "b", "uri": "file:b.gguf"}]},
        ),
    ),
]


def with_adapter(**fields: str) -> dict[str, Any]:
    adapter = {**TONE, **fields}
    model = {"uri": "file:a.gguf", "adapters": [adapter]}
    return manifest(model=model)


BAD += [
    (
        "model.adapters.name must be letters, digits and any of . _ - in between",
        with_adapter(name="a:b"),
    ),
    (
        f"model.adapters.uri must begin with {SCHEME_NAMES}",
        with_adapter(uri="ftp://example.com/a.gguf"),
    ),
    *((of_form("model.adapters.uri", uri), with_adapter(uri=uri)) for uri in ASTRAY),
    (
        "model.adapters.uri must not contain spaces; write them as %20",
        with_adapter(uri="file:my tone.gguf"),
    ),
    (
        "model.adapters.sha256 must be 64 lower-case hexadecimal digits",
        with_adapter(sha256="A" * 64),
    ),
    (
        (
            "model.adapters.scale must be a number from '0' to '8' with at most 4 decimals, "
            "such as '1.0'"
        ),
        with_adapter(scale="8.5"),
    ),
]

TRANSITIONS = {
    "pool cannot be changed; create another ModelDeployment in the other pool",
    "pool cannot be changed; create another collection there",
    COLLECTION_MESSAGE,
    *(frozen_message(field) for field in FROZEN),
}


def notes(name: str = "notes", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": name},
        "spec": {"pool": "default", "embedding": {"modelDeployment": "embed"}, **spec},
    }


def reindex(name: str = "to-minilm", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ReindexJob",
        "metadata": {"name": name},
        "spec": {"collection": "notes", **spec},
    }


BAD_COLLECTIONS = [
    (NAME_RULE["message"], notes("1st")),
    (
        "pool must be lower-case letters, digits and '-', beginning with a letter",
        notes(pool="Upper"),
    ),
    (URL_NEEDED_MESSAGE, notes(store={"type": "Qdrant"})),
    (URL_UNUSED_MESSAGE, notes(store={"type": "Embedded", "url": "http://qdrant:6333"})),
    (URL_MESSAGE, notes(store={"type": "Qdrant", "url": "qdrant:6333"})),
    (RERANK_MESSAGE, notes(rerank={"modelDeployment": "rank", "min": 50, "max": 20})),
    (ALIAS_MESSAGE, notes(aliases=["a:b"])),
    (QUANTIZATION_MESSAGE, notes(overrides={"quantization_config": {}})),
    (QUANTILE_MESSAGE, notes(overrides={"quantization_config": {"scalar": {"quantile": "2"}}})),
    (OVERSAMPLING_MESSAGE, notes(overrides={"params": {"quantization": {"oversampling": "0"}}})),
]
BAD += BAD_COLLECTIONS
BAD.append((NAME_RULE["message"], reindex("1st")))


@pytest.mark.parametrize(("message", "given"), BAD, ids=[message[:40] for message, _ in BAD])
def test_a_bad_resource_is_refused_in_our_words(
    crds: Cluster, message: str, given: dict[str, Any]
) -> None:
    assert message in refusal(crds, given)


def test_the_pool_cannot_be_changed(crds: Cluster) -> None:
    crds.apply(manifest("moves"), namespace=NAMESPACE)
    assert "pool cannot be changed; create another ModelDeployment in the other pool" in refusal(
        crds, manifest("moves", pool="other")
    )
    crds.apply(notes("moves"), namespace=NAMESPACE)
    assert "pool cannot be changed; create another collection there" in refusal(
        crds, notes("moves", pool="other")
    )


FROZEN_VALUES: list[tuple[str, Any, Any]] = [
    ("mode", "Auto", "Copy"),
    ("verify", {"sampleSize": 10}, {"sampleSize": 20}),
    ("cutover", "Auto", "Manual"),
    ("rollbackSeconds", 60, 0),
    ("oldCollection", "Retain", "Delete"),
    ("deadlineSeconds", 60, 61),
    ("ttlSecondsAfterFinished", 60, 0),
]


def test_how_a_reindex_job_goes_about_it_cannot_be_changed(crds: Cluster) -> None:
    assert [field for field, _, _ in FROZEN_VALUES] == list(FROZEN)
    crds.apply(reindex("bare"), namespace=NAMESPACE)
    given = {field: value for field, value, _ in FROZEN_VALUES}
    crds.apply(reindex("full", **given), namespace=NAMESPACE)
    assert COLLECTION_MESSAGE in refusal(crds, reindex("bare", collection="other"))
    for field, value, other in FROZEN_VALUES:
        words = frozen_message(field)
        assert words in refusal(crds, reindex("bare", **{field: value})), "added"
        assert words in refusal(crds, reindex("full", **{**given, field: other})), "changed"
        patch = json.dumps({"spec": {field: None}})
        removed = crds.kubectl(
            "patch",
            "rxj",
            "full",
            "--type=merge",
            "--dry-run=server",
            "-n",
            NAMESPACE,
            "-p",
            patch,
            check=False,
        )
        assert words in removed.stderr, "removed"


def test_what_steers_a_reindex_job_can_be_changed(crds: Cluster) -> None:
    steering = {
        "suspend": True,
        "cancel": True,
        "approve": True,
        "rollback": True,
        "priority": "High",
        "rate": {"pointsPerSecond": 100, "maxInFlight": 2},
    }
    crds.apply(reindex("steered"), namespace=NAMESPACE)
    for field, value in steering.items():
        crds.apply(reindex("steered", **{field: value}), namespace=NAMESPACE)
    crds.apply(reindex("steered"), namespace=NAMESPACE)


@pytest.mark.parametrize(("field", "value"), [("temperature", "word"), ("topP", "1.5")])
def test_a_default_that_is_no_number_in_range_is_refused(
    crds: Cluster, field: str, value: str
) -> None:
    words = refusal(crds, manifest(serving={"defaults": {field: value}}))
    assert f"serving.defaults.{field} must be a number" in words


def test_defaults_at_the_ends_of_their_ranges_are_accepted(crds: Cluster) -> None:
    defaults = [
        {"temperature": "0", "topP": "0.0001", "maxTokens": 1},
        {"temperature": "2.0", "topP": "1", "maxTokens": 4194304},
    ]
    for index, given in enumerate(defaults):
        crds.apply(manifest(f"default-{index}", serving={"defaults": given}), namespace=NAMESPACE)


def rules(node: Any) -> Iterator[str]:
    """Yield the message of every rule in a CRD."""
    if isinstance(node, dict):
        for rule in node.get("x-kubernetes-validations", ()):
            yield rule["message"]
        for value in node.values():
            yield from rules(value)
    elif isinstance(node, list):
        for value in node:
            yield from rules(value)


@pytest.mark.parametrize(
    "uri",
    [
        "file:folder",
        "pvc://models/bge/model.onnx",
        "https://example.com/a.gguf",
        "hf://owner/repository",
        "hf://owner/repository/onnx/@v1.0",
        "hf://owner/repository/onnx/model.onnx@" + "a" * 40,
        "s3://bucket",
        "s3://bucket/team/model/",
        "oci://registry.example.com:5000/team/model",
        "oci://registry.example.com/team/model:v1#a.gguf",
        "oci://registry.example.com/team/model@sha256:" + "a" * 64,
    ],
)
def test_every_form_of_address_is_accepted(crds: Cluster, uri: str) -> None:
    crds.kubectl(
        "apply",
        "--dry-run=server",
        "-n",
        NAMESPACE,
        "-f",
        "-",
        input=json.dumps(manifest(model={"uri": uri})),
    )


def test_no_rule_is_without_a_test() -> None:
    known = {message for kind in KINDS for message in rules(custom_resource_definition(kind))}
    assert known == {message for message, _ in BAD} | TRANSITIONS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (manifest(replicas=65), "less than or equal to 64"),
        (manifest(task="Dance"), "Unsupported value"),
        (manifest(aliases=["a", "a"]), "Duplicate value"),
        (manifest(engine={"contextLength": 1}), "greater than or equal to 32"),
        (
            manifest(model={"uri": "file:a.gguf", "adapters": [TONE, TONE]}),
            "Duplicate value",
        ),
        (
            manifest(model={"uri": "file:a.gguf", "adapters": [{**TONE, "scale": 0.5}]}),
            "must be of type string",
        ),
        (
            manifest(
                model={
                    "uri": "file:a.gguf",
                    "adapters": [{**TONE, "name": f"tone-{n}"} for n in range(17)],
                }
            ),
            "must have at most 16 items",
        ),
        (manifest("x" * 41), "at most 40"),
        (manifest(serving={"defaults": {"temperature": 0.7}}), "must be of type string"),
        (manifest(serving={"defaults": {"maxTokens": 0}}), "greater than or equal to 1"),
        (manifest(serving={"requestsPerMinute": -1}), "greater than or equal to 0"),
        (manifest(serving={"tokensPerMinute": -1}), "greater than or equal to 0"),
        (manifest(model={}), "Required value"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused(
    crds: Cluster, given: dict[str, Any], words: str
) -> None:
    assert words in refusal(crds, given)


def test_an_unknown_field_is_refused_by_name(crds: Cluster) -> None:
    answer = crds.kubectl(
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-n",
        NAMESPACE,
        "-f",
        "-",
        input=json.dumps(manifest(replica=1)),
        check=False,
    )
    assert answer.returncode != 0
    assert 'unknown field "spec.replica"' in answer.stderr


def test_every_field_is_explained(crds: Cluster) -> None:
    paths = ("mdep", "mdep.spec", "mdep.spec.model", "mdep.status", "vcol.spec", "vcol.status")
    for path in (*paths, "rxj.spec", "rxj.status"):
        text = crds.kubectl("explain", path, "--api-version=ullage.dev/v1alpha1").stdout
        assert "<empty>" not in text.replace("DESCRIPTION:\n    <empty>", "<empty>"), text
    text = crds.kubectl("explain", "mdep.spec").stdout
    assert "Pool of runtime pods that serves the model" in text


def test_scale_and_status_are_subresources(crds: Cluster) -> None:
    crds.apply(manifest("scales"), namespace=NAMESPACE)
    crds.kubectl("scale", f"{MDEP}/scales", "--replicas=3", "-n", NAMESPACE)
    found = crds.get_json(MDEP, "scales", "-n", NAMESPACE)
    assert found["spec"]["replicas"] == 3
    patch = '-p={"status":{"url":"http://x"}}'
    crds.kubectl("patch", MDEP, "scales", "--type=merge", patch, "-n", NAMESPACE)
    assert "status" not in crds.get_json(MDEP, "scales", "-n", NAMESPACE)


def test_short_name_and_category_list_the_resource(crds: Cluster) -> None:
    crds.apply(manifest("listed"), namespace=NAMESPACE)
    for name in ("mdep", "ullage"):
        assert "listed" in crds.kubectl("get", name, "-n", NAMESPACE).stdout
    crds.apply(notes("shelf"), namespace=NAMESPACE)
    for name in ("vcol", "ullage"):
        assert "shelf" in crds.kubectl("get", name, "-n", NAMESPACE).stdout
    crds.apply(reindex("move"), namespace=NAMESPACE)
    for name in ("rxj", "ullage"):
        assert "move" in crds.kubectl("get", name, "-n", NAMESPACE).stdout
