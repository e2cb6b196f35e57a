"""Decisions are found by their number."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in ROOT.glob("*/adr/0001-*.md"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.parent.name)
def test_each_has_a_number_of_its_own_and_none_is_missing(folder: Path) -> None:
    files = sorted(folder.glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        title = re.match(r"# (\d+)\. \S", file.read_text())
        assert title is not None, f"{file} has no title with its number"
        assert int(title[1]) == int(file.name[:4]), f"{file} is titled with another number"


def test_they_are_looked_for_where_they_are() -> None:
    assert {folder.parent.name for folder in FOLDERS} >= {"operator", "runtime"}
