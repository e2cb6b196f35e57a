"""The diagram of a reindex job's states is that of the code."""

from pathlib import Path

from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_runtime.core.reindexing.diagram import MEANINGS, page

PAGE = Path(__file__).parents[3] / "docs" / "reindex-states.md"


def test_the_page_is_what_the_code_draws() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make states` and read the diff"


def test_every_phase_is_explained() -> None:
    assert set(MEANINGS) == set(ReindexPhase)
