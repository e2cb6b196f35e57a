"""Whoever searches goes before documents on their way in."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.runtimes import eventually
from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.core.pooled import EmbedRequest, Output, PooledAnswer, Role, Said
from ullage_runtime.http.retrieval.embedding import PoolEmbedder
from ullage_runtime.retrieval.embedding import Vectors


class Lease:
    """A generation that embeds when it is told to, and remembers for whom."""

    revision = "r1"
    deadline = float("inf")
    make_way = None

    class loaded:  # noqa: N801 - stands for a value
        dimensions = 2
        outputs = (Output.DENSE,)
        token_width = 0

    def __init__(self) -> None:
        self.order: list[str] = []
        self.go = asyncio.Event()

    async def embed(self, request: EmbedRequest, role: Role | None = None) -> PooledAnswer:
        self.order.append(f"{request.tenant} {len(request.inputs)} {request.truncate}")
        await self.go.wait()
        return PooledAnswer((Said(array("f", [1.0, 0.0]).tobytes()),) * len(request.inputs), (1,))


class Models:
    def __init__(self, lease: Lease, task: Task = Task.EMBEDDING) -> None:
        self._lease, self._task = lease, task

    def find(self, name: str) -> DesiredModel:
        return DesiredModel(name=name, task=self._task, target=DesiredRevision(uri="file:x"))

    @contextlib.asynccontextmanager
    async def lease(self, model: DesiredModel, **given: Any) -> AsyncIterator[Lease]:
        yield self._lease


def embedder(lease: Lease, task: Task = Task.EMBEDDING) -> PoolEmbedder:
    return PoolEmbedder(Models(lease, task))  # type: ignore[arg-type]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_not_urgent_waits_until_nobody_searches() -> None:
    lease = Lease()
    pool = embedder(lease)
    urgent = asyncio.create_task(pool.embed("m", ["q"], Role.QUERY, tenant="a", urgent=True))
    await turns()
    slow = asyncio.create_task(pool.embed("m", ["d"], Role.DOCUMENT, tenant="i", urgent=False))
    await turns()
    assert lease.order == ["a 1 True"]
    lease.go.set()
    await asyncio.gather(urgent, slow)
    assert lease.order == ["a 1 True", "i 1 False"], "a question may lose its end, a text must not"


async def test_it_waits_for_a_while_only() -> None:
    lease = Lease()
    pool = PoolEmbedder(Models(lease), 0.01)  # type: ignore[arg-type]
    urgent = asyncio.create_task(pool.embed("m", ["q"], Role.QUERY, tenant="a", urgent=True))
    slow = asyncio.create_task(pool.embed("m", ["d"], Role.DOCUMENT, tenant="i", urgent=False))
    await eventually(lambda: len(lease.order) == 2, 60)
    lease.go.set()
    await asyncio.gather(urgent, slow)


async def test_many_texts_are_embedded_in_portions_and_stay_in_order() -> None:
    lease = Lease()
    lease.go.set()
    texts = [str(n) for n in range(150)]
    embedded = await embedder(lease).embed("m", texts, Role.DOCUMENT, tenant="i", urgent=False)
    assert lease.order == ["i 64 False", "i 64 False", "i 22 False"]
    assert embedded.texts == (Vectors((1.0, 0.0)),) * 150
    assert (embedded.space.revision, embedded.space.dimensions) == ("r1", 2)


async def test_a_model_for_something_else_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="is for Chat and does not embed texts"):
        await embedder(Lease(), Task.CHAT).space("m")
