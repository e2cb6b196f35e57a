"""Stores for tests: the embedded one in its own process, and the Qdrant of QDRANT_URL if given."""

import asyncio
import contextlib
import os
import pathlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from ullage_runtime.retrieval.edge.owning import ShardOwner
from ullage_runtime.retrieval.stores.embedded import EmbeddedStore
from ullage_runtime.retrieval.stores.port import Layout, Point, Sparse
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

QDRANT_URL = os.environ.get("QDRANT_URL")
STORES = ("embedded", "server") if QDRANT_URL else ("embedded",)
"""Stores that every test of the port runs on."""
DIMENSIONS = 8
LAYOUT = Layout(DIMENSIONS)


@contextlib.asynccontextmanager
async def owned(folder: pathlib.Path) -> AsyncIterator[tuple[ShardOwner, QdrantStore]]:
    """The embedded store on a folder: its owner process and a client of it."""
    owner = ShardOwner(folder)
    await owner.start()
    store = EmbeddedStore(owner.url, owner.key)
    try:
        yield owner, store
    finally:
        await store.close()
        await owner.close()


@contextlib.asynccontextmanager
async def opened(kind: str, folder: pathlib.Path) -> AsyncIterator[QdrantStore]:
    """A store of one of STORES."""
    if kind == "embedded":
        async with owned(folder) as (_, store):
            yield store
        return
    store = QdrantStore(QDRANT_URL or "", os.environ.get("QDRANT_API_KEY"))
    try:
        yield store
    finally:
        await store.close()


def vector(seed: int) -> tuple[float, ...]:
    """A dense vector that only this seed has."""
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    return tuple(dice.uniform(-1, 1) for _ in range(DIMENSIONS))


def point(number: int, **payload: object) -> Point:
    """A point whose vectors say its number."""
    return Point(number, payload, vector(number), Sparse((number, number + 1000), (1.0, 0.5)))


async def eventually(
    holds: Callable[[], Awaitable[bool]], seconds: float = 60.0, every: float = 0.02
) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come about within {seconds} s")
        await asyncio.sleep(every)
