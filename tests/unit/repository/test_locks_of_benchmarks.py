"""What the benchmarks install: of every package one version, whose files are known."""

import re
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"
REQUIREMENT = re.compile(r"^[\w.-]+(\[[\w,-]+\])?(?P<pin>==\S+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


@pytest.mark.parametrize("name", ["opponents.txt", "embedders.txt"])
def test_every_package_of_a_lock_is_pinned_with_its_files_digests(name: str) -> None:
    text = (BENCH / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) > 10
    for line in lines:
        found = REQUIREMENT.match(line)
        assert found is not None, line
        assert found["pin"], line
        assert HASH.search(line), line
