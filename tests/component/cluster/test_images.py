from __future__ import annotations

import datetime as dt
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from e2e.cluster.archives import write_image
from e2e.cluster.base_image import base_key
from e2e.cluster.context import IMAGES, loads_in_image, pack
from e2e.cluster.docker import builds_itself
from e2e.cluster.llama_wheel import runs_on_every_cpu

OPERATOR = IMAGES["operator"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for member in ("crds", "operator", "runtime"):
        (root / member / "src" / "package").mkdir(parents=True)
        (root / member / "src" / "package" / "code.py").write_text(f"# {member}\n")
        (root / member / "pyproject.toml").write_text(f"# {member}\n")
    for name in ("Dockerfile.operator", "LICENSE", "pyproject.toml", "uv.lock", "README.md"):
        (root / name).write_text(f"{name}\n")
    return root


def names(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return set(archive.getnames())


def test_a_context_holds_what_the_image_is_made_of_and_nothing_else(repository: Path) -> None:
    held = names(pack(OPERATOR, repository).data)
    assert {"Dockerfile.operator", "uv.lock", "operator/src/package/code.py"} <= held
    assert held.isdisjoint({"README.md", "runtime/src/package/code.py"})


def test_a_fresh_checkout_of_the_same_files_has_the_same_key(
    repository: Path, tmp_path: Path
) -> None:
    again = shutil.copytree(repository, tmp_path / "again")
    for path in again.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack(OPERATOR, again).key == pack(OPERATOR, repository).key


def test_a_changed_line_of_code_changes_the_key(repository: Path) -> None:
    before = pack(OPERATOR, repository).key
    (repository / "operator/src/package/code.py").write_text("# changed\n")
    assert pack(OPERATOR, repository).key != before


def test_compiled_code_is_no_part_of_a_context(repository: Path) -> None:
    before = pack(OPERATOR, repository).key
    compiled = repository / "operator/src/package/__pycache__/code.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"x")
    assert pack(OPERATOR, repository).key == before


@pytest.mark.parametrize(
    ("library", "version", "loads"),
    [
        ("glibc", "2.36", True),
        ("glibc", "2.31", True),
        ("glibc", "2.39", False),
        ("glibc", "3.0", False),
        ("", "", False),
    ],
)
def test_a_wheel_made_with_a_newer_c_library_never_enters_an_image(
    library: str, version: str, *, loads: bool
) -> None:
    assert loads_in_image(library, version) is loads


@pytest.mark.parametrize(("files", "expected"), [(["a"], False), (["haswell", "zen4"], True)])
def test_only_a_wheel_for_every_cpu_enters_an_image(
    tmp_path: Path, files: list[str], *, expected: bool
) -> None:
    wheel = tmp_path / "llama.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in files:
            archive.writestr(f"bin/libggml-cpu-{name}.so", "")
    assert runs_on_every_cpu(wheel) is expected


def test_the_base_image_is_made_anew_each_month() -> None:
    october = base_key(dt.date(2026, 10, 31))
    assert october == base_key(dt.date(2026, 10, 1))
    assert october != base_key(dt.date(2026, 11, 1))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("Docker version 20.10.24+dfsg1, build 1", True),
        ("Docker version 28.2.2", False),
        ("", False),
    ],
)
def test_newer_docker_clients_need_a_plugin_to_build(version: str, *, expected: bool) -> None:
    assert builds_itself(version) is expected


def test_an_archive_written_by_hand_has_the_form_of_docker_save(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"program")
    archive = tmp_path / "pause.tar"
    write_image(archive, reference="docker.io/library/pause:1", program=program)
    with tarfile.open(archive) as image:
        manifest = json.load(image.extractfile("manifest.json") or io.BytesIO())
        config = json.load(image.extractfile(manifest[0]["Config"]) or io.BytesIO())
    assert manifest[0]["RepoTags"] == ["docker.io/library/pause:1"]
    assert config["config"]["Entrypoint"] == ["/pause"]
