"""The process that owns the embedded store's shards: killed, contended, optimising."""

import asyncio
import contextlib
import os
import pathlib
import signal
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest

from tests.support.stores import DIMENSIONS, LAYOUT, eventually, owned, point, vector
from ullage_runtime.retrieval.edge.owning import ShardOwner
from ullage_runtime.retrieval.edge.refusals import VolumeError, VolumeInUse
from ullage_runtime.retrieval.stores.port import Branch, Query, StoreRefused, StoreUnavailable
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

NAME = "things"
SECONDS = 60.0
SEEDS = int(os.environ.get("ULLAGE_SOAK_SEEDS", "1"))
"""Each has three deaths."""


@pytest.fixture
async def place(tmp_path: pathlib.Path) -> AsyncIterator[tuple[ShardOwner, QdrantStore]]:
    async with owned(tmp_path / "volume") as (owner, store):
        await store.create(NAME, LAYOUT)
        yield owner, store


async def written(store: QdrantStore, first: int, count: int) -> None:
    await store.write(NAME, [point(n, n=n) for n in range(first, first + count)], first + 1)


async def all_ids(store: QdrantStore) -> list[object]:
    ids: list[object] = []
    after = None
    while True:
        page, after = await store.scroll(NAME, after=after, limit=1000)
        ids += [each.id for each in page]
        if after is None:
            return ids


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_acknowledged_point_is_lost_when_the_owner_is_killed_under_writes(
    place: tuple[ShardOwner, QdrantStore], seed: int
) -> None:
    owner, store = place
    acknowledged: set[int] = set()
    ended = asyncio.Event()

    async def write_all(lane: int) -> None:
        number = lane * 1_000_000
        while not ended.is_set():
            try:
                await written(store, number, 20)
            except StoreUnavailable:
                await asyncio.sleep(0.01)
                continue
            acknowledged.update(range(number, number + 20))
            number += 20

    writers = [asyncio.create_task(write_all(lane)) for lane in range(3)]
    for death in range(1, 4):
        # Counted from here on: the owner that is killed next has written some of them.
        enough = len(acknowledged) + 400

        async def has_written(enough: int = enough) -> bool:
            return len(acknowledged) >= enough

        await eventually(has_written, SECONDS)
        kill(owner.pid)

        async def is_back(death: int = death) -> bool:
            return owner.restarts == death

        await eventually(is_back, SECONDS)
    ended.set()
    await asyncio.gather(*writers)
    ids = await all_ids(store)
    assert len(ids) == len(set(ids)), "no point is there twice"
    assert acknowledged <= set(ids)
    assert owner.restarts == 3


async def test_what_was_written_is_there_when_the_volume_is_opened_again(
    tmp_path: pathlib.Path,
) -> None:
    async with owned(tmp_path) as (_, store):
        await store.create(NAME, LAYOUT)
        await written(store, 0, 30)
        await store.point_alias("also", NAME)
    async with owned(tmp_path) as (_, store):
        assert await store.count("also") == 30


async def test_a_second_owner_of_a_volume_is_refused_and_the_first_goes_on(
    place: tuple[ShardOwner, QdrantStore], tmp_path: pathlib.Path
) -> None:
    owner, store = place
    second = ShardOwner(tmp_path / "volume")
    with pytest.raises(VolumeInUse, match=rf"owned by another process \(pid {owner.pid}\)"):
        await second.start()
    await written(store, 0, 5)
    assert await store.count(NAME) == 5


async def test_a_volume_without_its_table_is_refused_rather_than_emptied(
    tmp_path: pathlib.Path,
) -> None:
    async with owned(tmp_path) as (_, store):
        await store.create(NAME, LAYOUT)
    (tmp_path / "table.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(VolumeError, match=r"has shards but no table\.json"):
        await ShardOwner(tmp_path).start()
    (tmp_path / "table.json").write_text("{half a table")
    with pytest.raises(VolumeError, match=r"table\.json cannot be read"):
        await ShardOwner(tmp_path).start()
    (tmp_path / "elsewhere.json").rename(tmp_path / "table.json")
    leftover = tmp_path / "shards" / "half-a-copy"
    leftover.mkdir()
    async with owned(tmp_path) as (_, store):
        assert await store.count(NAME) == 0
        assert not leftover.exists()


async def test_nobody_without_the_key_gets_in(place: tuple[ShardOwner, QdrantStore]) -> None:
    owner, _ = place
    for key in (None, "wrong"):
        stranger = QdrantStore(owner.url, key)
        with pytest.raises(StoreRefused, match="API key"):
            await stranger.count(NAME)
        await stranger.close()


async def test_the_owner_dies_with_the_process_that_started_it(
    place: tuple[ShardOwner, QdrantStore],
) -> None:
    owner, _ = place
    pid = owner.pid
    assert pid is not None
    await owner.close()
    assert not psutil.pid_exists(pid)


async def optimise(owner: ShardOwner) -> httpx.Response:
    headers = {"api-key": owner.key}
    async with httpx.AsyncClient(headers=headers, timeout=SECONDS, trust_env=False) as client:
        return await client.post(f"{owner.url}/collections/{NAME}/optimise")


async def test_an_index_is_built_beside_reads_and_writes_and_loses_neither(
    place: tuple[ShardOwner, QdrantStore],
) -> None:
    owner, store = place
    for first in range(0, 3000, 500):
        await written(store, first, 500)
    work = asyncio.create_task(optimise(owner))
    number = 3000
    while not work.done():
        await written(store, number, 10)
        number += 10
        query = Query((Branch(vector(7), 1),), 1)
        ((nearest,),) = await store.query(NAME, [query], seconds=SECONDS)
        assert nearest.id == 7
    assert (await work).status_code == 200
    assert await all_ids(store) == list(range(number))
    assert number > 3000
    kill(owner.pid)

    async def is_back() -> bool:
        return owner.restarts == 1

    await eventually(is_back, SECONDS)

    async def all_there() -> bool:
        try:
            return await all_ids(store) == list(range(number))
        except StoreUnavailable:
            return False

    await eventually(all_there, SECONDS)


async def test_a_killed_optimiser_costs_its_work_and_nothing_else(
    place: tuple[ShardOwner, QdrantStore], tmp_path: pathlib.Path
) -> None:
    owner, store = place
    await written(store, 0, 1000)
    work = asyncio.create_task(optimise(owner))
    children: list[psutil.Process] = []

    async def has_child() -> bool:
        children[:] = psutil.Process(owner.pid).children()
        return bool(children) or work.done()

    await eventually(has_child, SECONDS, every=0.001)
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in children:
            child.kill()
    answer = await work
    assert answer.status_code in {200, 500}
    assert await all_ids(store) == list(range(1000))
    await written(store, 1000, 10)
    assert await store.count(NAME) == 1010
    assert len(list((tmp_path / "volume" / "shards").iterdir())) == 1


async def test_an_index_is_built_by_itself_once_it_is_worth_it(
    place: tuple[ShardOwner, QdrantStore],
) -> None:
    _, store = place
    wide = "wide"
    await store.create(wide, type(LAYOUT)(512))
    dense = tuple(1.0 / (n + 1) for n in range(512))
    # Twice: an optimisation that begins before all are there may find too few to index, and the
    # rest too few to begin again.
    for first in (*range(0, 6000, 500), *range(0, 6000, 500)):
        points = [
            type(point(0))(n, {}, (*dense[n % 512 :], *dense[: n % 512]))
            for n in range(first, first + 500)
        ]
        await store.write(wide, points, first + 1)

    async def is_indexed() -> bool:
        found = await store.describe(wide)
        return found is not None and found.indexed_vectors > 0

    await eventually(is_indexed, 120, every=0.2)
    assert await store.count(wide) == 6000
    assert DIMENSIONS != 512
