"""Addresses, parsed."""

import pytest

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources.uris import FileUri, HubUri, OciUri, S3Uri, WebUri, parsed


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///models/a.gguf", FileUri("/models/a.gguf")),
        ("file://localhost/models/a.gguf", FileUri("/models/a.gguf")),
        ("file:/models/a%20b.gguf", FileUri("/models/a b.gguf")),
        ("file:guide/a.gguf", FileUri("guide/a.gguf")),
        ("https://h.test/a.gguf?x=1#part", WebUri("https://h.test/a.gguf?x=1")),
        ("http://h.test:8080/a.gguf", WebUri("http://h.test:8080/a.gguf")),
        ("hf://o/r/a.gguf", HubUri("o/r", "a.gguf", "main")),
        ("hf://o/r", HubUri("o/r", "")),
        ("hf://o/r/onnx/@v1.0", HubUri("o/r", "onnx/", "v1.0")),
        ("s3://bucket/a%20b.gguf", S3Uri("bucket", "a b.gguf")),
        ("s3://bucket", S3Uri("bucket", "")),
        ("oci://h.test:5000/team/m", OciUri("h.test:5000", "team/m", "latest")),
        ("oci://h.test/m:v1#a.gguf", OciUri("h.test", "m", "v1", "a.gguf")),
        (f"oci://h.test/m@sha256:{'a' * 64}", OciUri("h.test", "m", f"sha256:{'a' * 64}")),
        ("hf://o/r/sub/a%20b.gguf@v1.0", HubUri("o/r", "sub/a b.gguf", "v1.0")),
    ],
)
def test_an_address_has_its_parts(uri: str, expected: object) -> None:
    assert parsed(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "model.gguf",
        "/models/a.gguf",
        "s3://Bucket/a.gguf",
        "s3://bucket/../a.gguf",
        "s3://bucket//a.gguf",
        "oci://host",
        "oci://host/Team/model",
        "oci://host/team/model@sha256:12",
        "oci://host/team/model:tag#../a",
        "pvc://claim/a.gguf",
        "https:a.gguf",
        "https://",
        "https://h.test:port/a.gguf",
        "https://user:word@h.test/a.gguf",
        "file:",
        "file:///",
        "file:a%00b",
        "file://server/share/a.gguf",
        "hf://o",
        "hf://o/r/../../x",
        "hf://o/r/a.gguf@",
        "hf://o/r/a.gguf@a/b",
    ],
)
def test_an_address_of_no_known_form_is_refused_for_good(uri: str) -> None:
    with pytest.raises(LoadError) as caught:
        parsed(uri)
    assert (caught.value.reason, caught.value.final) == (Reason.SOURCE_UNAVAILABLE, True)
    assert "model.uri" in caught.value.message


def test_a_label_shows_no_query_which_may_hold_a_secret() -> None:
    source = parsed("https://h.test/a.gguf?X-Signature=secret")
    assert isinstance(source, WebUri)
    assert source.label == "https://h.test/a.gguf"


def test_only_a_full_commit_is_pinned() -> None:
    assert HubUri("o/r", "a", "a" * 40).is_pinned
    assert not HubUri("o/r", "a", "a" * 39).is_pinned
    assert not HubUri("o/r", "a", "main").is_pinned


@pytest.mark.parametrize(
    ("registry", "scheme"),
    [
        ("ghcr.io", "https"),
        ("h.test:5000", "https"),
        ("localhost:5000", "http"),
        ("127.0.0.1:5000", "http"),
        ("[::1]:5000", "http"),
    ],
)
def test_a_registry_is_spoken_to_plainly_on_this_machine_only(registry: str, scheme: str) -> None:
    assert OciUri(registry, "m", "latest").scheme == scheme
