"""A collection gets another model or index while it is searched and written."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.collection_pods import (
    MODELS,
    PATIENCE,
    C,
    document,
    model,
    notes,
    pod,
    posted,
    ready,
)
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.stores import eventually
from ullage_api.conditions import Reason
from ullage_runtime.app import Runtime
from ullage_runtime.retrieval.reindex.wire import LeaseRequest
from ullage_runtime.retrieval.reindex.worker.driving import ExitCode

R = "/v1/reindexes"
WIDE = 32
BOTH = (*MODELS, model("other", "other.gguf"))
WORDS = ("red", "fox", "water", "tank", "blue", "memory", "fire", "model", "the", "how")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("files")
    write_encoder(folder / "encoder.gguf", Encoder(width=64))
    write_encoder(folder / "other.gguf", Encoder(width=WIDE, seed=11))
    write_encoder(folder / "stranger.gguf", Encoder(width=64, seed=8))
    return folder


def text(number: int) -> str:
    """A text of its own for each number."""
    digits = f"{number:04d}"
    return " ".join(WORDS[int(digit)] for digit in digits)


async def filled(client: httpx.AsyncClient, count: int) -> None:
    for first in range(0, count, 100):
        points = [
            {"id": n, "text": text(n), "payload": {"n": n}}
            for n in range(first, min(first + 100, count))
        ]
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert answer.status_code == 200, answer.text


async def wanted(runtime: Runtime, files: pathlib.Path, sequence: int, **spec: Any) -> None:
    """Have the collection's spec say something else."""
    changed = document(files, BOTH, notes(**spec)).sealed(sequence)
    assert await runtime.documents.accept(changed)


@contextlib.asynccontextmanager
async def behind_its_spec(
    folder: pathlib.Path, files: pathlib.Path, count: int
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """Give a pod whose collection has so many points, and is to have the other model."""
    async with pod(folder, document(files, BOTH, notes())) as (runtime, client):
        await ready(client)
        await filled(client, count)
        await wanted(runtime, files, 2, embedding={"modelDeployment": "other"})
        yield runtime, client


async def changed(
    runtime: Runtime, files: pathlib.Path, sequence: int, name: str, reason: Reason
) -> str:
    """Have one of the models be another file, and return what is said of it for that reason."""
    models = tuple(
        model(each.name, "stranger.gguf").model_copy(update={"generation": sequence})
        if each.name == name
        else each
        for each in BOTH
    )
    spec = notes(embedding={"modelDeployment": "other"})
    assert await runtime.documents.accept(document(files, models, spec).sealed(sequence))

    async def is_said() -> bool:
        found = runtime.models.report().model(name)
        assert found is not None
        return found.generation == sequence and found.reason is reason

    await eventually(is_said, PATIENCE, every=0.05)
    found = runtime.models.report().model(name)
    assert found is not None
    return found.message


async def started(client: httpx.AsyncClient, name: str = "job", **spec: Any) -> None:
    await posted(client, R, {"name": name, "spec": {"collection": "notes", **spec}}, 201)


async def reached(
    client: httpx.AsyncClient, *phases: str, name: str = "job", seconds: float = PATIENCE
) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_there() -> bool:
        found.clear()
        found.update((await client.get(f"{R}/{name}")).json())
        ended = found["phase"] in {"Succeeded", "Cancelled", "Failed"}
        assert not ended or found["phase"] in phases, found
        return found["phase"] in phases

    await eventually(is_there, seconds, every=0.1)
    return found


async def search(client: httpx.AsyncClient, number: int) -> dict[str, Any]:
    body = {"query": text(number), "mode": "Dense", "limit": 1, "exact": True}
    return dict((await posted(client, f"{C}/search", body))["results"][0])


class Traffic:
    """Somebody who searches and writes all the time, and remembers what was acknowledged."""

    def __init__(self, client: httpx.AsyncClient, base: int) -> None:
        self.client, self.base = client, base
        self.searches = self.writes = 0
        self.deleted: set[int] = set()
        self.written: dict[int, int] = {}
        self.touched: set[int] = set()
        """What was begun to be written: a search may find it as it was or as it is."""
        self.failures: list[str] = []

    async def searching(self) -> None:
        while True:
            number = self.searches % self.base
            body = {"query": text(number), "mode": "Dense", "limit": 1, "exact": True}
            answer = await self.client.post(f"{C}/search", json=body)
            self.searches += 1
            if answer.status_code != 200:
                self.failures.append(answer.text)
            elif number not in self.touched:
                found = answer.json()["results"][0]
                if found["payload"]["text"] != text(number):
                    self.failures.append(f"{text(number)!r} found {found}")

    async def writing(self) -> None:
        while True:
            number = self.writes % self.base
            self.writes += 1
            self.touched.add(number)
            # Until it is acknowledged it may be as it was or as it is to be.
            self.written.pop(number, None)
            self.deleted.discard(number)
            if number % 5 == 0:
                answer = await self.client.post(
                    f"{C}/points/delete", params={"wait": True}, json={"ids": [number]}
                )
                self.deleted.add(number)
            else:
                point = {"id": number, "text": text(number), "payload": {"again": self.writes}}
                answer = await self.client.put(
                    f"{C}/points", params={"wait": True}, json={"points": [point]}
                )
                self.written[number] = self.writes
            if answer.status_code != 200:
                self.failures.append(answer.text)

    async def check(self) -> None:
        """Hold what is read now against what was acknowledged."""
        assert self.failures == []
        for number, when in self.written.items():
            found = (await self.client.get(f"{C}/points/{number}")).json()
            assert found["payload"]["again"] == when, number
        for number in self.deleted:
            assert (await self.client.get(f"{C}/points/{number}")).status_code == 404, number


@contextlib.asynccontextmanager
async def traffic(client: httpx.AsyncClient, base: int) -> AsyncIterator[Traffic]:
    made = Traffic(client, base)
    tasks = [asyncio.create_task(made.searching()), asyncio.create_task(made.writing())]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_another_model_takes_over_under_traffic_and_goes_back_with_the_writes_since(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with behind_its_spec(tmp_path, files, 300) as (runtime, client):
        async with traffic(client, 300) as users:
            await started(client, rollbackSeconds=600)
            soaking = await reached(client, "Soaking")
            assert soaking["plan"] == "Reembed"
            assert soaking["switched"] is True
            # Specs have a generation on a cluster only, and here is none.
            assert soaking["target"].get("generation") is None
            told = (await client.get("/metrics")).text
            names = 'collection="notes",job="job"'
            for series in (
                f'ullage_reindex_phase{{{names},phase="Soaking"}} 1.0',
                f'ullage_reindex_phase{{{names},phase="Copying"}} 0.0',
                f'ullage_reindex_points{{{names},what="total"}} {soaking["points"]["total"]}.0',
                f'ullage_reindex_points{{{names},what="failed"}} 0.0',
                f"ullage_reindex_points_per_second{{{names}}} 0.0",
            ):
                assert series in told, series
            described = await ready(client)
            assert (described["model"], described["dimensions"]) == ("other", WIDE)
            before = users.writes
            await eventually(lambda: _more(users, before + 20), PATIENCE)
        await users.check()
        assert users.searches > 20
        # Both are written with, so that neither becomes another one.
        said = await changed(runtime, files, 3, "encoder", Reason.EMBEDDING_IN_USE)
        assert "'notes'" in said
        assert "a cosine of " in said
        said = await changed(runtime, files, 4, "other", Reason.EMBEDDING_IN_USE)
        assert "its vectors have 64 dimensions" in said
        assert f"have {WIDE};" in said

        await posted(client, f"{R}/job/rollback", {})
        back = await reached(client, "Cancelled")
        assert back["reason"] == "RolledBack"
        described = await ready(client)
        assert (described["model"], described["dimensions"]) == ("encoder", 64)
        await users.check()
        store = runtime.services.collections.find("notes").store
        assert await store.describe("notes-2") is None, "the target is removed"
        assert await store.aliases() == {"notes": "notes-1"}
        said = await changed(runtime, files, 5, "encoder", Reason.EMBEDDING_IN_USE)
        assert "'notes'" in said


async def _more(users: Traffic, count: int) -> bool:
    return users.writes > count


async def test_a_worker_that_is_asked_to_end_keeps_the_next_one_from_nothing(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with behind_its_spec(tmp_path, files, 100) as (runtime, client):
        await started(client, rate={"pointsPerSecond": 1})
        await reached(client, "Copying")
        job = runtime.services.reindexes.find("job").job

        async def is_driven() -> bool:
            return job.record.token == 1

        await eventually(is_driven, PATIENCE)
        process = runtime.workers.processes["job"]
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == ExitCode.TERMINATED
        # Nobody has to wait for the end of its lease, which would be refused here.
        lease = await runtime.services.reindexes.find("job").lease(LeaseRequest(worker="next"))
        assert lease.token == 2
        await posted(client, f"{R}/job/cancel", {})
        await reached(client, "Cancelled")
