"""Vectors on disk: found again by another process, within their bytes, and never wrong."""

import pathlib
import sqlite3
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ullage_runtime.core.cache import CacheKey, Size
from ullage_runtime.core.pooled import Said, SparseVector, TokenVectors
from ullage_runtime.models.shelf import MAX_WAITING, SHELF_FILE, Shelf, Vector

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(asked: str, **other: str) -> CacheKey:
    whose = {"tenant": "t", "model": "m", "revision": "r", **other}
    return CacheKey(**whose, asked=asked.encode())


def vector(number: int, width: int = 4) -> Vector:
    return Vector(Said(array("f", [number] * width).tobytes()), tokens=number)


def incompressible(number: int) -> Vector:
    noise = [float((number * 7919 + place * 104729) % 99991) for place in range(1024)]
    return Vector(Said(array("f", noise).tobytes()), tokens=1)


@asynccontextmanager
async def shelf(
    folder: pathlib.Path, clock: Clock | None = None, max_bytes: int = MIB, version: str = "1"
) -> AsyncIterator[Shelf]:
    made = Shelf(folder / SHELF_FILE, max_bytes, now=clock or Clock(), version=version)
    try:
        yield made
    finally:
        await made.close()


async def found(kept: Shelf, *keys: CacheKey) -> list[Vector | None]:
    answer = await kept.find(keys)
    return [answer[each].vector if each in answer else None for each in keys]


async def test_vectors_of_every_kind_are_found_by_the_next_process(tmp_path: pathlib.Path) -> None:
    numbers = array("f", [1, 2, 3, 4]).tobytes()
    rich = Vector(
        Said(
            numbers, SparseVector(array("i", [5]).tobytes(), numbers[:4]), TokenVectors(numbers, 2)
        ),
        tokens=3,
    )
    async with shelf(tmp_path) as kept:
        kept.keep({key("a"): vector(1), key("b"): rich}, 60)
    async with shelf(tmp_path) as kept:
        assert await found(kept, key("a"), key("b"), key("c")) == [vector(1), rich, None]
        assert (await kept.size()).entries == 2


@pytest.mark.parametrize("other", [{"tenant": "u"}, {"model": "n"}, {"revision": "s"}])
async def test_others_and_other_revisions_have_their_own(
    tmp_path: pathlib.Path, other: dict[str, str]
) -> None:
    async with shelf(tmp_path) as kept:
        kept.keep({key("a"): vector(1)}, 60)
        assert await found(kept, key("a", **other)) == [None]
    async with shelf(tmp_path, version="2") as kept:
        assert await found(kept, key("a")) == [None]


async def test_a_vector_ends_at_its_time_of_day(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as kept:
        kept.keep({key("a"): vector(1)}, 60)
        clock.now += 59
        assert (await kept.find([key("a")]))[key("a")].seconds == pytest.approx(1)
        clock.now += 1
        assert await found(kept, key("a")) == [None]
        assert (await kept.size()).entries == 0


async def test_those_used_least_recently_leave_and_the_file_stays_within_its_bytes(
    tmp_path: pathlib.Path,
) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as kept:
        for number in range(600):
            clock.now += 100
            if number == 150:
                assert await found(kept, key("0")) != [None]
            kept.keep({key(str(number)): incompressible(number)}, 1e9)
            await kept.size()
        assert kept.bytes <= MIB
        assert await found(kept, key("0"), key("1"), key("599")) == [
            None,
            None,
            incompressible(599),
        ]
        assert (await kept.size()).entries > 100
        assert (tmp_path / SHELF_FILE).stat().st_size < 1.2 * MIB


async def test_what_was_used_lately_outlives_what_was_not(tmp_path: pathlib.Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as kept:
        for number in range(260):
            clock.now += 100
            kept.keep({key(str(number)): incompressible(number)}, 1e9)
            assert await found(kept, key("0")) == [incompressible(0)]
        assert await found(kept, key("1")) == [None]


async def test_clearing_forgets_what_is_meant_and_gives_the_disk_back(
    tmp_path: pathlib.Path,
) -> None:
    async with shelf(tmp_path) as kept:
        for number in range(100):
            kept.keep({key(str(number)): incompressible(number)}, 60)
            await kept.size()
        kept.keep({key("x", model="n"): vector(1), key("y", tenant="u"): vector(2)}, 60)
        assert (await kept.clear(tenant="u")).entries == 1
        cleared = await kept.clear(model="m")
        assert cleared.entries == 100
        assert cleared.bytes > 300_000
        assert await found(kept, key("x", model="n")) == [vector(1)]
        assert (tmp_path / SHELF_FILE).stat().st_size < 100_000
        kept.forget("n")
        assert (await kept.size()).entries == 0


async def test_an_entry_that_was_changed_on_disk_is_no_entry(tmp_path: pathlib.Path) -> None:
    async with shelf(tmp_path) as kept:
        kept.keep({key("a"): vector(1), key("b"): vector(2)}, 60)
    db = sqlite3.connect(tmp_path / SHELF_FILE)
    with db:
        (packed,) = db.execute("SELECT packed FROM vectors LIMIT 1").fetchone()
        db.execute("UPDATE vectors SET packed = ?", (packed,))
        db.execute("UPDATE vectors SET packed = x'00' WHERE rowid = 2")
    db.close()
    async with shelf(tmp_path) as kept:
        answer = await kept.find([key("a"), key("b")])
        assert len(answer) == 1
        assert (await kept.size()).entries == 1


@pytest.mark.parametrize("how", ["rubbish", "torn", "a folder"])
async def test_a_file_that_is_broken_costs_what_it_kept_and_no_more(
    tmp_path: pathlib.Path, how: str
) -> None:
    path = tmp_path / SHELF_FILE
    async with shelf(tmp_path) as kept:
        for number in range(50):
            kept.keep({key(str(number)): incompressible(number)}, 60)
            await kept.size()
    if how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        content = path.read_bytes()
        wrong = b"rubbish" * 9999
        path.write_bytes(wrong if how == "rubbish" else content[:8192] + wrong)
    async with shelf(tmp_path) as kept:
        asked = [key(str(number)) for number in range(50)]
        await kept.find(asked)
        kept.keep({key("new"): vector(1)}, 60)
        if how != "a folder":
            kept.keep({key("new"): vector(1)}, 60)
            assert await found(kept, key("new")) == [vector(1)]
        else:
            assert await found(kept, key("new")) == [None]
            assert await kept.clear() == Size(0, 0)


async def test_more_than_can_be_written_is_not_kept_rather_than_piled_up(
    tmp_path: pathlib.Path,
) -> None:
    async with shelf(tmp_path) as kept:
        for number in range(10 * MAX_WAITING):  # without giving the loop its turn
            kept.keep({key(str(number)): vector(1)}, 60)
        assert (await kept.size()).entries == MAX_WAITING
        kept.keep({key("later"): vector(1)}, 60)
        assert await found(kept, key("later")) == [vector(1)]
