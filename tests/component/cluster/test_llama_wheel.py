"""The kept wheel: compiled once, and never mistaken for another."""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
from pathlib import Path

import pytest

from e2e.cluster import llama_wheel

LOCK = '[[package]]\nname = "llama-cpp-python"\nversion = "1.0"\nsdist = {{ hash = "{hash}" }}\n'
PROJECT = (
    "[tool.uv.config-settings-package]\n"
    'llama-cpp-python = {{ "cmake.define.GGML_NATIVE" = "{native}" }}\n'
)


def checkout(root: Path, digest: str = "sha256:a", native: str = "OFF") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "uv.lock").write_text(LOCK.format(hash=digest))
    (root / "pyproject.toml").write_text(PROJECT.format(native=native))
    return root


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a uv whose cache holds a native wheel and, older, one for every CPU."""
    monkeypatch.setenv("ULLAGE_CACHE_DIR", str(tmp_path / "kept"))
    folder = tmp_path / "uv-cache" / "sdists-v9" / "pypi" / "llama-cpp-python" / "1.0" / "x"
    folder.mkdir(parents=True)
    for name, libraries in (("every", ("zen4", "haswell")), ("native", ("native",))):
        wheel = folder / name / "llama_cpp_python-1.0-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            for library in libraries:
                archive.writestr(f"bin/libggml-cpu-{library}.so", name)
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\necho {tmp_path / 'uv-cache'}\n")
    program.chmod(0o755)
    return str(program)


def test_the_wheel_for_every_cpu_is_kept_and_found_by_the_next_checkout(
    tmp_path: Path, uv: str
) -> None:
    first = checkout(tmp_path / "first")
    assert llama_wheel.kept(first) is None
    assert llama_wheel.keep(uv, first)
    found = llama_wheel.kept(checkout(tmp_path / "second"))
    assert found is not None
    with zipfile.ZipFile(found) as archive:
        assert "bin/libggml-cpu-zen4.so" in archive.namelist()
    assert not llama_wheel.keep(uv, first), "what is kept is not copied again"


@pytest.mark.parametrize("change", [{"digest": "sha256:b"}, {"native": "ON"}])
def test_another_source_or_other_settings_do_not_find_it(
    tmp_path: Path, uv: str, change: dict[str, str]
) -> None:
    llama_wheel.keep(uv, checkout(tmp_path / "first"))
    assert llama_wheel.kept(checkout(tmp_path / "other", **change)) is None


def test_an_environment_that_has_it_is_left_alone(tmp_path: Path, uv: str) -> None:
    first = checkout(tmp_path / "first")
    llama_wheel.keep(uv, first)
    packages = first / ".venv" / "lib" / "python3.11" / "site-packages"
    (packages / "llama_cpp_python-1.0.dist-info").mkdir(parents=True)
    assert not llama_wheel.restore("/nonexistent/uv", first)


def test_what_uv_has_built_is_told_apart_by_our_changes_to_llama_cpp() -> None:
    root = llama_wheel.REPOSITORY
    project = tomllib.loads((root / "pyproject.toml").read_text())
    settings = project["tool"]["uv"]["config-settings-package"]["llama-cpp-python"]
    changes = (root / "runtime" / "patches" / "llama_cpp.cmake").read_bytes()
    assert settings["cmake.define.ULLAGE_PATCHES"] == hashlib.sha256(changes).hexdigest()[:16]
