from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from e2e.cluster.binaries import (
    KUBELITE_SOURCE,
    KUBERNETES_VERSION,
    is_new_enough,
    kubelite_key,
    program,
)


@pytest.mark.parametrize(
    ("version", "fetches_newer", "expected"),
    [
        ("go1.24.0", False, True),
        ("go1.26.8", False, True),
        ("go1.22.1", False, False),
        ("go1.22.1", True, True),
        ("go1.19.8", True, False),
        ("devel", True, False),
    ],
)
def test_go_is_used_only_if_it_can_build_our_modules(
    version: str, *, fetches_newer: bool, expected: bool
) -> None:
    assert is_new_enough(version, fetches_newer=fetches_newer) is expected


def test_a_changed_module_is_another_binary(tmp_path: Path) -> None:
    source = Path(shutil.copytree(KUBELITE_SOURCE, tmp_path / "kubelite"))
    assert kubelite_key(source) == kubelite_key()
    (source / "go.sum").write_text("")
    assert kubelite_key(source) != kubelite_key()


def test_every_module_of_kubernetes_has_the_version_that_the_binary_reports() -> None:
    modules = (KUBELITE_SOURCE / "go.mod").read_text()
    minor = KUBERNETES_VERSION.removeprefix("1.")
    assert f"k8s.io/kubernetes v1.{minor}" in modules
    replaced = re.findall(r"=> k8s\.io/\S+ (\S+)", modules)
    assert set(replaced) == {f"v0.{minor}"}


def test_an_unknown_program_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no program 'kubectx'"):
        program("kubectx")
