"""What the chart renders, word for word: a change of any manifest shows in a review.

`make golden` rewrites the files after a change that is meant.
"""

import difflib
import os
from pathlib import Path

import pytest

from tests.support.chart import EXAMPLES, rendered_text

HERE = Path(__file__).parent
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
VALUES = {
    "default": None,
    "namespaced": EXAMPLES / "values-namespaced.yaml",
    "gpu": EXAMPLES / "values-gpu.yaml",
    "everything": HERE / "everything.values.yaml",
}


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_renders_what_the_golden_file_says(name: str) -> None:
    values = VALUES[name]
    # The CRDs have a drift test of their own; here they would only drown the rest.
    arguments = ["--set", "crds.install=false", *([f"--values={values}"] if values else [])]
    text = rendered_text(*arguments)
    golden = HERE / f"{name}.yaml"
    if UPDATE:
        golden.write_text(text)
    difference = difflib.unified_diff(
        golden.read_text().splitlines(), text.splitlines(), str(golden), "rendered", lineterm=""
    )
    assert not (shown := "\n".join(difference)), f"{shown}\nmeant? run `make golden`"


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert rendered_text() == rendered_text()
