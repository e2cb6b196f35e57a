"""The closing lines of a test run, and what a skipped test means on CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a project with our root conftest, a unit test that passes and an e2e test that skips."""
    shutil.copy(ROOT / "conftest.py", tmp_path)
    unit, scenario = tmp_path / "tests" / "unit" / "test_a.py", tmp_path / "e2e" / "test_b.py"
    for path in (unit, scenario):
        path.parent.mkdir(parents=True)
    unit.write_text("def test_that_passes() -> None: ...\n")
    scenario.write_text("import pytest\n\n\ndef test_that_skips():\n    pytest.skip('no node')\n")
    return tmp_path


def run(project: Path, *, ci: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider"],
        cwd=project,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_run_ends_with_the_tests_of_each_group(project: Path) -> None:
    lines = run(project, ci="").stdout.splitlines()
    assert "unit         1 passed" in lines
    assert "e2e          1 skipped" in lines


def test_a_skipped_test_fails_a_run_on_ci_and_no_other(project: Path) -> None:
    assert run(project, ci="").returncode == 0
    done = run(project, ci="true")
    assert done.returncode == 1
    assert "a skipped test fails the run" in done.stdout
