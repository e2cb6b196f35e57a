"""Whatever happens while a collection is reindexed, what is read equals what was accepted."""

import asyncio
import os
import pathlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.histories import blocks, engine
from tests.support.reindex_histories import (
    Counting,
    Doomed,
    Fault,
    Process,
    ReindexHistory,
    live_all,
)
from tests.support.stores import eventually
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_runtime.retrieval.reindex.worker import copying

HISTORIES = int(os.environ.get("ULLAGE_HISTORIES", "40"))
"""`make soak` lives through ten thousand."""
CONTROLS = range(1, 5)


@pytest.fixture(autouse=True)
def _pages_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a few points be several pages, which are copied at once as those of many points are."""
    monkeypatch.setattr(copying, "EMBEDDED_PAGE", 2)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", blocks(HISTORIES, 200))
async def test_what_is_read_equals_the_log_after_any_history_beside_a_reindex(
    seeds: range, tmp_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    lives = await live_all(tmp_path, seeds)
    crashes = sum(each.crashes for each in lives)
    phases = Counter(each.phase for each in lives)
    record_property("histories", len(lives))
    record_property("crashes", crashes)
    record_property("phases", {phase.value: count for phase, count in phases.items()})
    assert [each.wrong for each in lives if each.wrong] == []
    assert crashes > len(lives), "without crashes they prove little"
    assert phases.keys() == {Phase.SUCCEEDED, Phase.CANCELLED}


async def test_a_lost_change_is_named_by_versions_and_passes_a_comparison_of_counts(
    tmp_path: pathlib.Path,
) -> None:
    exact = await faulty(made(tmp_path / "exact"), Fault.STALE)
    refused = [each for each in exact if each.phase is Phase.FAILED]
    assert refused, "no copy lost anything"
    assert all("differ: point" in each.message for each in refused)
    assert [each.wrong for each in exact if each.wrong] == [], "nothing wrong was ever searched"
    counted = await faulty(made(tmp_path / "counting"), Fault.STALE, verifying=Counting)
    assert {each.phase for each in counted} == {Phase.SUCCEEDED}
    assert any(each.wrong for each in counted), "counts would have done"


def made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    return folder


async def test_a_copy_without_conditions_undoes_what_was_written_meanwhile(
    tmp_path: pathlib.Path,
) -> None:
    lives = await faulty(tmp_path, Fault.UNCONDITIONAL)
    assert {each.phase for each in lives} == {Phase.SUCCEEDED}
    assert any(each.wrong for each in lives), "conditions would not be needed"


async def faulty(folder: pathlib.Path, fault: Fault, **given: Any) -> list[ReindexHistory]:
    """Live through some histories with a fault; how many show it depends on what comes when."""
    return await live_all(folder, CONTROLS, fault=fault, **given)


async def test_a_spec_that_changes_while_a_collection_opens_does_not_cut_that_short(
    tmp_path: pathlib.Path,
) -> None:
    async with engine(tmp_path / "volume") as store:
        process = Process(tmp_path, Doomed(store, random.Random(1), 0.0, []))  # noqa: S311
        opening, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def taken_up(_: str) -> None:
            opening.set()
            await may_end.wait()
            ended.set()

        process.collections.on_open = taken_up
        given = {"pool": "default", "embedding": {"modelDeployment": "old"}}
        spec = VectorCollectionSpec.model_validate(given)
        await process.collections.apply([DesiredCollection(name="notes", spec=spec)])
        async with asyncio.timeout(60):
            await opening.wait()
            indexes = [{"field": "group", "type": "Integer"}]
            changed = VectorCollectionSpec.model_validate({**given, "payloadIndexes": indexes})
            await process.collections.apply([DesiredCollection(name="notes", spec=changed)])
            may_end.set()
            await ended.wait()

        async def is_indexed() -> bool:
            found = await store.describe("notes-1")
            return found is not None and found.payload_indexes == {"group": "integer"}

        await eventually(is_indexed)
        await process.die()
