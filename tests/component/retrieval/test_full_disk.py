"""The embedded store on a real disk that fills up: nothing acknowledged is lost, and it goes on."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.reindexed import place, spec
from tests.support.stores import LAYOUT, eventually, owned, point
from ullage_runtime.retrieval.stores.port import DELETED, Point, StoreError, StoreUnavailable
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

NAME = "things"
AT_ONCE = 10
FILLER = "x" * 60_000
SMALL, LARGE = "160m", "512m"
LATER = 200_000
LEFT = 40 << 20
"""Bytes of a disk that is as good as full: fewer than the engine writes with."""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0,
    reason="mounting a file system needs Linux and root",
)


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of its own, which is gone afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted("-t", "tmpfs", "-o", f"size={SMALL}", "ullage-test", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mounted(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def write(store: QdrantStore, first: int) -> None:
    points = [point(n, n=n, filler=FILLER) for n in range(first, first + AT_ONCE)]
    await store.write(NAME, points, first + 1)


async def filled(store: QdrantStore) -> set[int]:
    """Write until the store takes no more and return what it has acknowledged."""
    acknowledged: set[int] = set()
    with contextlib.suppress(StoreError):
        for first in range(0, LATER, AT_ONCE):
            await write(store, first)
            acknowledged |= set(range(first, first + AT_ONCE))
        raise AssertionError("the disk was never full")
    return acknowledged


async def ids(store: QdrantStore) -> set[int]:
    found: set[int] = set()
    after = None
    while True:
        page, after = await store.scroll(NAME, after=after, limit=1000)
        found |= {int(each.id) for each in page}
        if after is None:
            return found


async def test_what_was_acknowledged_is_there_when_the_disk_is_full_and_when_it_grows(
    disk: pathlib.Path,
) -> None:
    async with owned(disk / "volume") as (owner, store):
        await store.create(NAME, LAYOUT)
        acknowledged = await filled(store)
        assert acknowledged, "the disk takes something"

        # Full as it is, it is read, and what makes room is written.
        assert await ids(store) == acknowledged
        with pytest.raises(StoreUnavailable, match="MiB are free, and 64 are needed; enlarge"):
            await write(store, LATER)
        await store.write(NAME, [Point(0, {DELETED: True})], LATER)
        (gone,) = await store.retrieve(NAME, [0])
        assert gone.is_tombstone

        # The disk grows, as a volume that is enlarged does.
        mounted("-o", f"remount,size={LARGE}", str(disk))

        async def takes_more() -> bool:
            with contextlib.suppress(StoreError):
                await write(store, LATER)
                return True
            return False

        await eventually(takes_more, every=0.5)
        assert acknowledged | set(range(LATER, LATER + AT_ONCE)) == await ids(store)
        assert owner.restarts == 0, "it never died of it"


async def test_a_reindex_whose_target_has_no_room_is_given_up_and_done_once_there_is(
    disk: pathlib.Path,
) -> None:
    mounted("-o", f"remount,size={LARGE}", str(disk))
    ballast = disk / "ballast"
    async with place(disk / "pod", spec()) as here:
        await here.write(*range(50))
        await here.wants(spec(profile="FastQuery"), 2)
        here.works = False
        await here.job(mode="Copy")
        assert (await here.reached("Copying")).plan == "Copy"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - LEFT)
        here.works = True
        failed = await here.reached("Failed")
        assert failed.reason == "NoRoom"
        assert "MiB are free, and 64 are needed" in failed.message
        assert await here.notes.store.describe("notes-2") is None
        assert await here.found(7) == 7

        ballast.unlink()
        await here.write(50)
        await here.job("again", mode="Copy", rollbackSeconds=0)
        assert (await here.reached("Succeeded", name="again")).switched
        assert [await here.found(each) for each in (7, 50)] == [7, 50]
