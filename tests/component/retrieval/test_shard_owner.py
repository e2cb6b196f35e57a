"""The process that owns the embedded store's shards: killed, contended, optimising."""

import asyncio
import itertools
import os
import pathlib
import random
import signal
import time
from collections.abc import AsyncIterator
from functools import partial

import httpx
import psutil
import pytest

from tests.support.stores import DIMENSIONS, LAYOUT, eventually, owned, point, vector
from ullage_runtime.retrieval.edge.optimising import Optimiser
from ullage_runtime.retrieval.edge.owning import ShardOwner
from ullage_runtime.retrieval.edge.refusals import VolumeError, VolumeInUse
from ullage_runtime.retrieval.edge.shards import Shards
from ullage_runtime.retrieval.log.changes import ChangeLog
from ullage_runtime.retrieval.log.file import LogFile, Routing
from ullage_runtime.retrieval.stores.port import (
    Branch,
    Point,
    Query,
    StoreUnavailable,
)
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

NAME = "things"
SECONDS = 60.0
SEEDS = int(os.environ.get("ULLAGE_SOAK_SEEDS", "1"))
"""Each has three deaths, and says when they come."""
DEATHS = 3


@pytest.fixture
async def place(tmp_path: pathlib.Path) -> AsyncIterator[tuple[ShardOwner, QdrantStore]]:
    async with owned(tmp_path / "volume") as (owner, store):
        await store.create(NAME, LAYOUT)
        yield owner, store


async def written(store: QdrantStore, first: int, count: int) -> None:
    await store.write(NAME, [point(n, n=n) for n in range(first, first + count)], first + 1)


async def all_points(store: QdrantStore) -> list[Point]:
    points: list[Point] = []
    after = None
    while True:
        page, after = await store.scroll(NAME, after=after, limit=1000)
        points += page
        if after is None:
            return points


async def all_ids(store: QdrantStore) -> list[object]:
    return [each.id for each in await all_points(store)]


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def change_all(
    changes: ChangeLog,
    ids: range,
    dice: random.Random,
    expected: dict[object, int],
    ended: asyncio.Event,
) -> None:
    """Write and delete points until it is told to end; `expected` is what was accepted of them."""
    for turn in itertools.count():
        if ended.is_set():
            return
        some = dice.sample(ids, 20)
        if dice.random() < 0.2:
            version = await changes.delete(some)
            for each in some:
                expected.pop(each, None)
        else:
            version = await changes.upsert([point(each, turn=turn) for each in some])
            expected.update(dict.fromkeys(some, turn))
        if dice.random() < 0.5:
            await changes.wait(version, SECONDS)


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
async def test_no_accepted_change_is_lost_or_undone_when_the_owner_is_killed_under_writes(
    place: tuple[ShardOwner, QdrantStore], tmp_path: pathlib.Path, seed: int
) -> None:
    owner, store = place
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    changes = ChangeLog(LogFile(tmp_path / "log.sqlite", time.time), store)
    await changes.open()
    await changes.start(Routing(1, NAME, (NAME,), {}))
    expected: dict[object, int] = {}
    ended = asyncio.Event()
    lanes = [
        asyncio.create_task(
            change_all(
                changes,
                range(lane * 1000, lane * 1000 + 300),
                random.Random(f"{seed}/{lane}"),  # noqa: S311 - likewise
                expected,
                ended,
            )
        )
        for lane in range(3)
    ]
    for death in range(1, DEATHS + 1):
        # Once it has taken so many changes more; with none it may not even have opened its shards.
        enough = changes.applied + dice.choice((0, dice.randrange(1, 60)))

        async def has_applied(enough: int = enough) -> bool:
            return changes.applied >= enough

        await eventually(has_applied, SECONDS, every=0.001)
        await asyncio.sleep(dice.uniform(0, 0.1))
        victim = owner.pid
        kill(victim)

        async def has_another(death: int = death, victim: int | None = victim) -> bool:
            return owner.restarts == death and owner.pid != victim

        await eventually(has_another, SECONDS)
    ended.set()
    await asyncio.gather(*lanes)
    await changes.settled((NAME,), SECONDS)
    points = [each for each in await all_points(store) if not each.is_tombstone]
    ids = [each.id for each in points]
    assert len(ids) == len(set(ids)), "no point is there twice"
    assert {each.id: each.payload["turn"] for each in points} == expected
    assert owner.restarts == DEATHS
    await changes.close()


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
        with pytest.raises(StoreUnavailable, match="Invalid API key"):
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


def optimisers(owner: ShardOwner, folder: pathlib.Path) -> list[psutil.Process]:
    """Return the owner's children that are at work on a copy: they have its files open."""
    found = []
    for child in psutil.Process(owner.pid).children():
        try:
            maps = [each.path for each in child.memory_maps()]
            files = [each.path for each in child.open_files()]
        except psutil.Error:
            continue  # it has ended meanwhile
        if any(pathlib.Path(path).is_relative_to(folder) for path in (*maps, *files)):
            found.append(child)
    return found


async def test_a_killed_optimiser_costs_its_work_and_nothing_else(
    place: tuple[ShardOwner, QdrantStore], tmp_path: pathlib.Path
) -> None:
    owner, store = place
    shards = tmp_path / "volume" / "shards"
    await written(store, 0, 1000)
    hits: list[str] = []

    async def is_hit() -> bool:
        """Kill whoever builds the index, while it does; a kill that comes too late is none."""
        work = asyncio.create_task(optimise(owner))
        while not work.done() and not hits:
            for child in optimisers(owner, shards):
                child.kill()
            await asyncio.sleep(0.001)
        answer = await work
        if answer.status_code == 500:
            hits.append(answer.json()["status"]["error"])
        return bool(hits)

    await eventually(is_hit, SECONDS)
    assert f"the child exited with {-signal.SIGKILL}" in hits[0]
    assert await all_ids(store) == list(range(1000))
    assert len(list(shards.iterdir())) == 1
    await written(store, 1000, 10)
    assert await store.count(NAME) == 1010
    assert (await optimise(owner)).status_code == 200, "the next one is not held up by it"
    assert await all_ids(store) == list(range(1010))
    assert owner.restarts == 0


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


async def test_new_points_get_an_index_of_their_own_and_one_with_the_others_once_it_is_quiet(
    tmp_path: pathlib.Path,
) -> None:
    shards = Shards(tmp_path)
    layout = {"vectors": {"dense": {"size": 512, "distance": "Cosine"}}}
    shards.create(NAME, layout)
    dice = random.Random(1)  # noqa: S311 - not for secrets
    optimiser = Optimiser(shards, quiet_seconds=3600.0)
    running = asyncio.create_task(optimiser.run())

    async def has(segments: int) -> bool:
        return bool(shards.describe(NAME)["segments_count"] == segments)

    async def is_indexed(points: int) -> bool:
        return bool(shards.describe(NAME)["indexed_vectors_count"] >= points)

    async def more(first: int, count: int) -> None:
        await optimiser.wait_writable(NAME)
        points = [
            {"id": n, "vector": {"dense": [dice.uniform(-1, 1) for _ in range(512)]}}
            for n in range(first, first + count)
        ]
        shards.upsert(NAME, {"points": points})

    try:
        await more(0, 6000)
        await eventually(partial(is_indexed, 6000), SECONDS)
        assert await has(2)
        await more(6000, 6000)
        await eventually(partial(has, 3), SECONDS)
        assert await is_indexed(12_000)
        assert shards.shard(NAME).is_split
        optimiser.quiet_seconds = 0.0
        await eventually(partial(has, 2), SECONDS)
        assert await is_indexed(12_000)
        assert shards.count(NAME, {}) == 12_000
        assert not shards.shard(NAME).is_split
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        shards.close()
