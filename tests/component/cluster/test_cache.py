from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.cache import building, cache_root, content_key, locked
from e2e.cluster.errors import DeadlineError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULLAGE_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_the_cache_lies_where_the_environment_says(cache: Path) -> None:
    assert cache_root() == cache / "cluster"


def test_without_a_choice_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ULLAGE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/ullage/cluster")


def test_a_key_is_the_same_for_the_same_content() -> None:
    assert content_key("a", b"b") == content_key(b"a", "b")


def test_a_byte_that_moves_to_the_next_part_changes_the_key() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")


def test_a_finished_build_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "tool"
    with building(target) as folder:
        (folder / "program").write_text("x")
        assert not target.exists()
    assert (target / "program").read_text() == "x"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build() -> None:
        with building(tmp_path / "tool") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_a_lock_that_another_holds_is_waited_for_only_so_long() -> None:
    with (
        locked("tool", timeout=1.0),
        pytest.raises(DeadlineError, match=r"tool\.lock"),
        locked("tool", timeout=0.0),
    ):
        pass


@pytest.mark.usefixtures("cache")
def test_a_lock_is_free_again_after_its_block() -> None:
    for _ in range(2):
        with locked("tool", timeout=0.0):
            pass
