from __future__ import annotations

from pathlib import Path

import pytest

from e2e.cluster.cli import main
from e2e.cluster.errors import MissingRequirementError
from e2e.cluster.fixtures import unavailable
from e2e.cluster.packages import missing, require


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ULLAGE_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_cluster_that_does_not_exist_is_said_to_and_how_to_make_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["kubeconfig", "--name", "none"]) == 1
    assert "python -m e2e.cluster up --name none" in capsys.readouterr().err


def test_taking_down_what_does_not_exist_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "--name", "none"]) == 0
    assert "did not exist" in capsys.readouterr().err


def test_a_machine_without_clusters_has_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out == ""


def test_only_missing_programs_have_their_package_named() -> None:
    programs = {"sh": "dash", "no-such-program": "some-package", "neither": "some-package"}
    assert missing(programs) == ["some-package"]


def test_what_is_here_is_not_installed() -> None:
    require({"sh": "dash"}, purpose="a test")


def test_without_apt_the_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingRequirementError, match=r"a test needs .* some-package"):
        require({"no-such-program": "some-package"}, purpose="a test")


def test_what_a_machine_cannot_run_is_skipped() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        unavailable(MissingRequirementError("a node needs root"), on_ci=False)


def test_on_ci_nothing_may_be_skipped() -> None:
    with pytest.raises(pytest.fail.Exception, match="needs root"):
        unavailable(MissingRequirementError("a node needs root"), on_ci=True)
