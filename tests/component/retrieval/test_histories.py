"""Whatever happens to the writers, the store comes to hold what the log says."""

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.support.histories import PHYSICAL, blocks, engine, live_all
from tests.support.stores import DIMENSIONS, point, vector
from ullage_runtime.retrieval.log.changes import ChangeLog, NotApplied
from ullage_runtime.retrieval.log.file import LogFile, Routing
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    Branch,
    Layout,
    Point,
    Query,
    StoreTimeout,
    StoreUnavailable,
)
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

HISTORIES = int(os.environ.get("ULLAGE_HISTORIES", "200"))
"""`make soak` lives through ten thousand."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seeds", blocks(HISTORIES))
async def test_the_store_equals_the_log_after_any_history_with_crashes(
    seeds: range, tmp_path: pathlib.Path, record_property: Callable[[str, object], None]
) -> None:
    crashes = await live_all(tmp_path, seeds)
    record_property("histories", len(seeds))
    record_property("crashes", crashes)
    assert crashes > len(seeds), "histories without crashes prove little"


async def test_a_copy_that_only_inserts_brings_a_deleted_point_back_and_ours_does_not(
    tmp_path: pathlib.Path,
) -> None:
    """A copy reads a point; the point is deleted everywhere; then the copy writes what it read."""
    async with engine(tmp_path) as store:
        for target in ("theirs", "ours"):
            await store.create(target, Layout(DIMENSIONS))
        read = point(1)
        client, models = store._client, store._models
        # As a back-fill with `insert_only` does it, the deletion being a real one.
        await client.delete("theirs", models.PointIdsList(points=[1]), wait=True)
        struct = models.PointStruct(id=1, vector={"dense": list(vector(1))}, payload={})
        await client.upsert(
            "theirs", [struct], wait=True, update_mode=models.UpdateMode.INSERT_ONLY
        )
        # As our writers do it.
        await store.write("ours", [Point(1, {DELETED: True})], 2)
        await store.write("ours", [read], 1)
        found = {
            target: await store.query(target, [Query((Branch(vector(1), 5),), 5)], seconds=60)
            for target in ("theirs", "ours")
        }
        assert [each.id for each in found["theirs"][0]] == [1], "it came back"
        assert found["ours"][0] == []


class Away(QdrantStore):
    """A store that cannot be reached until it is told so."""

    away = True

    async def write(self, collection: str, points: object, version: int) -> None:
        if self.away:
            raise StoreUnavailable("nobody is at home")
        await super().write(collection, points, version)  # type: ignore[arg-type]


async def opened(path: pathlib.Path, store: QdrantStore, now: float = 0.0) -> ChangeLog:
    changes = ChangeLog(LogFile(path, lambda: now), store)
    routing = await changes.open()
    await changes.start(routing or Routing(1, PHYSICAL, (PHYSICAL,), {"name": "m"}))
    return changes


async def test_a_change_is_accepted_while_the_store_is_away_and_applied_once_it_is_back(
    tmp_path: pathlib.Path,
) -> None:
    async with engine(tmp_path / "volume") as store:
        await store.create(PHYSICAL, Layout(DIMENSIONS))
        away = Away.__new__(Away)
        away.__dict__.update(store.__dict__)
        changes = await opened(tmp_path / "log.sqlite", away)
        version = await changes.upsert([point(1)])
        with pytest.raises(StoreTimeout, match=r"but not applied within 0\.2 s; nobody is"):
            await changes.wait(version, 0.2)
        assert changes.behind == 1
        away.away = False
        await changes.wait(version, 60)
        assert changes.behind == 0
        assert await store.count(PHYSICAL) == 1
        await changes.close()


async def test_a_change_that_the_store_refuses_does_not_hold_up_the_rest(
    tmp_path: pathlib.Path,
) -> None:
    async with engine(tmp_path / "volume") as store:
        await store.create(PHYSICAL, Layout(DIMENSIONS))
        changes = await opened(tmp_path / "log.sqlite", store)
        bad = await changes.upsert([Point(1, {}, (1.0, 2.0))])
        good = await changes.upsert([point(2)])
        await changes.wait(good, 60)
        with pytest.raises(NotApplied, match="expected dim: 8, got 2"):
            await changes.wait(bad, 60)
        await changes.close()
        changes = await opened(tmp_path / "log.sqlite", store)
        with pytest.raises(NotApplied):
            await changes.wait(bad, 60)
        await changes.close()


async def test_what_is_old_and_applied_is_forgotten_and_its_number_never_given_again(
    tmp_path: pathlib.Path,
) -> None:
    async with engine(tmp_path / "volume") as store:
        await store.create(PHYSICAL, Layout(DIMENSIONS))
        changes = await opened(tmp_path / "log.sqlite", store)
        await changes.upsert([point(1), point(2)])
        last = await changes.delete([1])
        await changes.wait(last, 60)
        assert await changes.forget(before=-1.0) == 0, "it is too fresh"
        assert await store.count(PHYSICAL) == 2
        assert await changes.forget(before=1.0) == last
        assert await store.count(PHYSICAL) == 1
        await changes.close()
        changes = await opened(tmp_path / "log.sqlite", store)
        assert await changes.upsert([point(3)]) == last + 1
        assert changes.routing == Routing(1, PHYSICAL, (PHYSICAL,), {"name": "m"})
        await changes.close()


async def test_every_index_that_is_written_gets_every_change(tmp_path: pathlib.Path) -> None:
    async with engine(tmp_path / "volume") as store:
        for target in ("a", "b"):
            await store.create(target, Layout(DIMENSIONS))
        path = tmp_path / "log.sqlite"
        changes = ChangeLog(LogFile(path, lambda: 0.0), store)
        await changes.open()
        await changes.start(Routing(1, "a", ("a",), {}))
        await changes.wait(await changes.upsert([point(1)]), 60)
        await changes.close()
        changes = ChangeLog(LogFile(path, lambda: 0.0), store)
        await changes.open()
        await changes.start(Routing(2, "a", ("a", "b"), {}))
        await changes.upsert([point(2)])
        await changes.settled(("a", "b"), 60)
        assert [await store.count(target) for target in ("a", "b")] == [2, 2]
        await changes.close()
