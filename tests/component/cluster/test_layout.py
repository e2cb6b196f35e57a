from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout, Spec, clusters


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULLAGE_CACHE_DIR", str(tmp_path))
    return tmp_path


def make(spec: Spec) -> Layout:
    layout = Layout.of(spec.name)
    layout.root.mkdir(parents=True)
    layout.save(spec)
    return layout


@pytest.mark.parametrize("name", ["", "../up", "Team", "a" * 25, "a/b", "-a", "a\n"])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="a cluster's name"):
        Layout.of(name)


def test_a_specification_is_read_back_as_it_was_kept() -> None:
    spec = Spec(name="one", shape="node", slot=3, port=6443).owned()
    assert make(spec).load() == spec


def test_a_cluster_that_does_not_exist_has_no_specification() -> None:
    assert Layout.of("none").load() is None


def test_every_cluster_is_listed() -> None:
    for name in ("two", "one"):
        make(Spec(name=name, shape="node"))
    assert [spec.name for _, spec in clusters()] == ["one", "two"]


def test_a_cluster_without_an_owner_is_never_an_orphan() -> None:
    assert not Spec(name="mine", shape="node").orphaned


def test_a_cluster_is_an_orphan_once_its_owner_has_ended() -> None:
    owned = Spec(name="test", shape="node").owned()
    assert not owned.orphaned
    assert replace(owned, owner_started="another process of that pid").orphaned
