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


def installed(root: Path, name: str) -> Path:
    """Give a checkout an environment with one of the two wheels; return what describes it."""
    found = (
        root / ".venv" / "lib" / "python3.11" / "site-packages" / "llama_cpp_python-1.0.dist-info"
    )
    found.mkdir(parents=True, exist_ok=True)
    (found / "RECORD").write_text(record(name))
    return found


def record(name: str) -> str:
    return "".join(f"bin/libggml-cpu-{library}.so,sha256={name},1\n" for library in WHEELS[name])


WHEELS = {
    "every": ("zen4", "haswell"),
    "patched": ("zen4", "haswell"),
    "native": ("native",),
}


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a uv whose cache holds three wheels, and that writes down what it is told."""
    monkeypatch.setenv("ULLAGE_CACHE_DIR", str(tmp_path / "kept"))
    folder = tmp_path / "uv-cache" / "sdists-v9" / "pypi" / "llama-cpp-python" / "1.0" / "x"
    folder.mkdir(parents=True)
    for name, libraries in WHEELS.items():
        wheel = folder / name / "llama_cpp_python-1.0-py3-none-any.whl"
        wheel.parent.mkdir()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("llama_cpp_python-1.0.dist-info/RECORD", record(name))
            for library in libraries:
                archive.writestr(f"bin/libggml-cpu-{library}.so", name)
    program = tmp_path / "uv"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path / "asked"}\necho {tmp_path / "uv-cache"}\n'
    )
    program.chmod(0o755)
    return str(program)


def content(wheel: Path | None) -> str:
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("bin/libggml-cpu-zen4.so").decode()


@pytest.mark.parametrize("name", ["every", "patched"])
def test_the_wheel_that_is_installed_is_kept_and_found_by_the_next_checkout(
    tmp_path: Path, uv: str, name: str
) -> None:
    first = checkout(tmp_path / "first")
    installed(first, name)
    assert llama_wheel.kept(first) is None
    assert llama_wheel.keep(uv, first)
    assert content(llama_wheel.kept(checkout(tmp_path / "second"))) == name
    assert not llama_wheel.keep(uv, first), "what is kept is not copied again"


@pytest.mark.parametrize("change", [{"digest": "sha256:b"}, {"native": "ON"}])
def test_another_source_or_other_settings_do_not_find_it(
    tmp_path: Path, uv: str, change: dict[str, str]
) -> None:
    first = checkout(tmp_path / "first")
    installed(first, "every")
    assert llama_wheel.keep(uv, first)
    assert llama_wheel.kept(checkout(tmp_path / "other", **change)) is None


def test_a_wheel_for_one_cpu_is_not_kept(tmp_path: Path, uv: str) -> None:
    first = checkout(tmp_path / "first")
    installed(first, "native")
    assert not llama_wheel.keep(uv, first)


def test_an_environment_that_has_it_is_left_alone(tmp_path: Path, uv: str) -> None:
    first = checkout(tmp_path / "first")
    installed(first, "every")
    llama_wheel.keep(uv, first)
    assert not llama_wheel.restore("/nonexistent/uv", first)


def test_one_of_other_settings_leaves_and_is_never_kept_as_what_is_wanted(
    tmp_path: Path, uv: str
) -> None:
    root = checkout(tmp_path / "first")
    installed(root, "every")
    assert llama_wheel.keep(uv, root)

    checkout(root, native="ON")
    assert not llama_wheel.restore(uv, root)
    assert "pip uninstall" in (tmp_path / "asked").read_text()
    # What `uv sync` compiles now is kept, not what was there before.
    installed(root, "patched")
    assert llama_wheel.keep(uv, root)
    assert content(llama_wheel.kept(root)) == "patched"

    checkout(root)
    assert llama_wheel.restore(uv, root), "back to the settings before, the wheel of these returns"
    assert "--reinstall-package llama-cpp-python" in (tmp_path / "asked").read_text()


def test_what_uv_has_built_is_told_apart_by_our_changes_to_llama_cpp() -> None:
    root = llama_wheel.REPOSITORY
    project = tomllib.loads((root / "pyproject.toml").read_text())
    settings = project["tool"]["uv"]["config-settings-package"]["llama-cpp-python"]
    changes = (root / "runtime" / "patches" / "llama_cpp.cmake").read_bytes()
    assert settings["cmake.define.ULLAGE_PATCHES"] == hashlib.sha256(changes).hexdigest()[:16]
