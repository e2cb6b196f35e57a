"""Whatever happens while a collection is reindexed, what is read equals what was accepted."""

import os
import pathlib
from collections import Counter

import pytest

from tests.support.reindex_histories import live_all
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase

HISTORIES = int(os.environ.get("ULLAGE_HISTORIES", "40"))
"""`make soak` lives through ten thousand."""


@pytest.mark.timeout(max(600, HISTORIES * 15))
async def test_what_is_read_equals_the_log_after_any_history_beside_a_reindex(
    tmp_path: pathlib.Path,
) -> None:
    lives = await live_all(tmp_path, range(1, HISTORIES + 1))
    assert [each.wrong for each in lives if each.wrong] == []
    assert sum(each.crashes for each in lives) > HISTORIES, "without crashes they prove little"
    phases = Counter(each.phase for each in lives)
    assert phases.keys() == {Phase.SUCCEEDED, Phase.CANCELLED}
