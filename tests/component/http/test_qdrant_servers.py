"""Collections whose vectors are on a server: its key, its absences, and what is asked of it."""

import json
import os
import pathlib
import signal
import time
from typing import Any

import httpx
import pytest

from tests.support.collection_pods import (
    MODELS,
    PATIENCE,
    TEXTS,
    WIDTH,
    C,
    count,
    document,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.qdrant_servers import HOST, QdrantServer, qdrant_server
from tests.support.stores import eventually
from ullage_api.wire.pod_report import CollectionState
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_runtime.app import COLLECTIONS_FOLDER
from ullage_runtime.retrieval.stores.port import Distance, Layout, Point

POINTS = [{"id": n, "text": text} for n, text in TEXTS.items()]
DOCUMENTS = {"documents": [{"id": "tank", "text": "how the water tank"}]}


def on(server: QdrantServer, **spec: Any) -> DesiredCollection:
    return notes(store={"type": "Qdrant", "url": server.url}, **spec)


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder in which a pod finds its namespace's credentials."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    return folder


async def put(client: httpx.AsyncClient, points: Any, *, wait: bool = True) -> httpx.Response:
    return await client.put(f"{C}/points", params={"wait": wait}, json={"points": points})


async def written(client: httpx.AsyncClient) -> None:
    answer = await put(client, POINTS)
    assert answer.status_code == httpx.codes.OK, answer.text


async def found(client: httpx.AsyncClient, query: str, **body: Any) -> list[Any]:
    answer = await posted(client, f"{C}/search", {"query": query, **body})
    assert answer["degraded"] == []
    return [hit["id"] for hit in answer["results"]]


async def said(client: httpx.AsyncClient, words: str) -> dict[str, Any]:
    """Wait until a collection's message has these words; return what is told of it."""
    told: dict[str, Any] = {}

    async def is_said() -> bool:
        told.update((await client.get(C)).json())
        return words in told["message"]

    await eventually(is_said, PATIENCE, every=0.1)
    return told


async def test_documents_go_to_a_server_are_found_and_outlive_the_pod_and_the_server(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    volume = tmp_path / "server"
    async with qdrant_server(volume) as server:
        (keys / HOST).write_text(f"{server.key}\n")
        desired = document(files, MODELS, on(server, aliases=["manual"]))
        async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
            assert (await ready(client))["dimensions"] == WIDTH
            done = await posted(client, f"{C}/documents?wait=true", DOCUMENTS, 202)
            assert (done["status"], done["done"]) == ("completed", 1)
            await written(client)
            for mode in ("Dense", "Sparse", "Hybrid"):
                assert (await found(client, TEXTS[3], mode=mode))[0] == 3
            assert await count(client) == 4
            await posted(client, f"{C}/points/delete?wait=true", {"ids": [1]})
            store = server.store()
            try:
                aliases = {"notes": "notes-1", "manual": "notes-1"}
                assert await store.aliases() == aliases
                held = await store.retrieve("notes-1", [2, 3])
                assert sorted(each.payload["text"] for each in held) == [TEXTS[3], TEXTS[2]]
            finally:
                await store.close()
        ours = tmp_path / "state" / COLLECTIONS_FOLDER
        assert sorted(each.name for each in ours.iterdir()) == ["notes"], "no shards of its own"

        # The server is started again, too: what it has is on its disk.
        pid = server.owner.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
            await ready(client)
            assert await count(client) == 3
            assert (await found(client, TEXTS[3]))[0] == 3
            where = {"must": [{"key": "document", "match": {"value": "tank"}}]}
            assert len(await found(client, "tank", filter=where)) == 1
            again = await posted(client, f"{C}/documents?wait=true", DOCUMENTS, 202)
            assert again["unchanged"] == 1


async def test_another_store_is_taken_up_at_once_and_where_it_lacks_the_data_that_is_said(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        moved = QdrantServer(server.owner)
        await moved.begin()
        try:
            desired = document(files, MODELS, on(server))
            async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
                await ready(client)
                await written(client)
                here = document(files, MODELS, notes()).sealed(2)
                await runtime.documents.accept(here)
                told = await said(client, "the store has no 'notes-1', which the log of collection")
                assert not told["ready"]
                await server.end()
                await runtime.documents.accept(document(files, MODELS, on(moved)).sealed(3))
                await ready(client)
                assert await count(client) == len(POINTS)
                assert (await found(client, TEXTS[3]))[0] == 3
        finally:
            await moved.close()


@pytest.mark.parametrize("key", [None, "another server's"])
async def test_a_key_that_is_missing_or_wrong_is_named_by_its_host_and_the_next_one_is_tried(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path, key: str | None
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        if key is not None:
            (keys / HOST).write_text(key)
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            address = server.url.removeprefix("http://")
            says = f"the store at {address} does not accept the key that it is shown"
            told = await said(client, says)
            assert not told["ready"]
            assert "Invalid API key" in told["message"], "the server's own words"
            assert f"under {HOST} into the Secret ullage-credentials" in told["message"]
            assert "another server's" not in told["message"]
            (entry,) = runtime.services.collections.reported()
            assert (entry.state, says in entry.message) == (CollectionState.FAILED, True)
            for answer in (
                await client.post(f"{C}/search", json={"query": "a"}),
                await put(client, POINTS),
            ):
                assert says in refused(answer, 503, "collection_unavailable")
            # The Secret's change arrives, and nobody starts anything again.
            (keys / HOST).write_text(server.key)
            await ready(client)
            await written(client)
            assert (await found(client, TEXTS[2]))[0] == 2


async def test_nothing_that_was_accepted_is_lost_while_a_servers_key_is_another(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            await written(client)
            pid, before = server.owner.pid, server.key
            server.owner.key = "the-next-key"
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            runtime.services.collections.find("notes").wait_seconds = 1.0

            async def is_refused() -> bool:
                answer = await put(client, [{"id": 7, "text": "red fox"}])
                return "does not accept the key" in refused(answer, 504, "timeout")

            await eventually(is_refused, PATIENCE)
            answer = await client.post(f"{C}/search", json={"query": "fox"})
            assert "does not accept the key" in refused(answer, 503, "collection_unavailable")
            assert before not in answer.text
            (keys / HOST).write_text(server.key)

            async def is_applied() -> bool:
                return (await client.get(f"{C}/points/7")).status_code == httpx.codes.OK

            await eventually(is_applied, PATIENCE, every=0.1)
            assert await count(client) == 4


async def test_a_server_that_goes_away_amid_writes_costs_none_of_them(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            await written(client)
            await server.end()
            # What needs no look at what is there is accepted, in its order, and on the log's disk.
            for n, text in ((1, "blue fire"), (10, "water"), (11, "memory")):
                answer = await put(client, [{"id": n, "text": text}], wait=False)
                assert answer.json()["status"] == "accepted", answer.text
            gone = await posted(client, f"{C}/points/delete", {"ids": [11]})
            assert gone["status"] == "accepted"
            taken = await posted(client, f"{C}/documents", DOCUMENTS, 202)
            runtime.services.collections.find("notes").wait_seconds = 0.5
            answer = await put(client, [{"id": 12, "text": "the tank"}])
            address = server.url.removeprefix("http://")
            message = refused(answer, 504, "timeout")
            assert f"the store at {address} cannot be reached" in message
            assert answer.json()["error"].items() >= {"status": "accepted", "points": 1}.items()
            # What changes what a filter finds needs the store.
            where = {"filter": {"must": [{"key": "text", "match": {"value": "water"}}]}}
            answer = await client.post(f"{C}/points/delete", json=where)
            refused(answer, 503, "collection_unavailable")
            told = (await client.get(C)).json()
            assert not told["ready"]
            assert address in told["message"]
            listed = (await client.get("/v1/collections")).json()["collections"]
            assert [each["ready"] for each in listed] == [False]
        # The pod goes too, before the server is back.
        async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
            await said(client, address)
            await server.begin()
            await ready(client)

            async def is_done() -> bool:
                answer = await client.get(f"/v1/operations/{taken['id']}")
                return bool(answer.json()["status"] == "completed")

            await eventually(is_done, PATIENCE, every=0.1)
            # Three from before, 10 and 12, and the document; 11 is gone again.
            assert await count(client) == 6
            assert (await client.get(f"{C}/points/1")).json()["payload"]["text"] == "blue fire"
            refused(await client.get(f"{C}/points/11"), 404, "point_not_found")
            assert 12 in await found(client, "the tank", mode="Sparse")


async def test_a_server_that_is_slow_is_waited_for_no_longer_than_is_said(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            await written(client)
            known = {"query": TEXTS[2], "limit": 2}
            before = await posted(client, f"{C}/search", known)
            collections = runtime.services.collections
            collections.searcher("notes").search_seconds = 0.3
            collections.find("notes").wait_seconds = 0.3
            server.answers.clear()
            began = time.monotonic()
            answer = await client.post(f"{C}/search", json={"query": "unknown"})
            assert "did not answer within 0.3 s" in refused(answer, 504, "timeout")
            answer = await put(client, [{"id": 9, "text": "slow fire"}])
            message = refused(answer, 504, "timeout")
            assert "the change is accepted, but not applied within 0.3 s" in message
            known_of_it = answer.json()["error"]
            assert known_of_it.items() >= {"status": "accepted", "points": 1}.items()
            assert known_of_it["version"] > 1
            assert time.monotonic() - began < 15, "nobody waits for the server's own time"
            # What was answered before is answered, and says from when it is.
            stale = await posted(client, f"{C}/search", known)
            assert stale["results"] == before["results"]
            server.answers.set()

            async def is_there() -> bool:
                answer = await client.get(f"{C}/points/9")
                return answer.status_code == httpx.codes.OK

            await eventually(is_there, PATIENCE, every=0.1)

            async def is_searched() -> bool:
                answer = await client.post(f"{C}/search", json={"query": "slow fire"})
                return answer.status_code == httpx.codes.OK

            await eventually(is_searched, PATIENCE, every=0.1)
            assert (await found(client, "slow fire"))[0] == 9


async def test_a_write_that_the_server_answers_before_it_is_done_is_not_called_done(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    def acknowledged(method: str, path: str, answer: Any) -> Any:
        if (method, path) == ("PUT", "/collections/notes-1/points"):
            answer["result"]["status"] = "wait_timeout"
        return answer

    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            collection = runtime.services.collections.find("notes")
            collection.wait_seconds = 0.5
            server.edit = acknowledged
            answer = await put(client, POINTS)
            message = refused(answer, 504, "timeout")
            assert "has not finished: wait_timeout" in message
            assert answer.json()["error"]["version"] == 1
            server.edit = lambda _, __, answer: answer
            collection.wait_seconds = PATIENCE
            answer = await put(client, [{"id": 9, "text": "red"}])
            assert answer.json() == {"status": "applied", "version": 2, "points": 1}
            assert await count(client) == 4


async def test_where_nothing_differs_a_server_is_only_read(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        fields = {"payloadIndexes": [{"field": "shelf", "type": "Integer"}], "aliases": ["manual"]}
        desired = document(files, MODELS, on(server, **fields))
        async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
            await ready(client)
            await written(client)
        assert server.changes, "it was made"
        server.asked.clear()
        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            await found(client, "fox")
            # The same spec again, and one whose change is none of the store's.
            further: dict[str, Any]
            for sequence, further in ((2, {}), (3, {"chunking": {"maxTokens": 99}})):
                other = on(server, **fields, **further)
                await runtime.documents.accept(document(files, MODELS, other).sealed(sequence))
                held = runtime.services.collections.held("notes")
                assert held.task is not None
                await held.task
                await held.look()
            assert server.changes == []
            store = runtime.services.collections.find("notes").store
            described = await store.describe("notes-1")
            assert described is not None
            layout = described.layout
            await store.alter("notes-1", layout.hnsw, layout.quantization)
            assert server.changes == []
            await store.alter("notes-1", {**layout.hnsw, "m": 8}, layout.quantization)
            assert server.changes == [("PATCH", "/collections/notes-1")]


async def test_a_collection_that_a_server_has_already_is_taken_over_as_it_is(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        foreign = Layout(WIDTH, distance=Distance.DOT, hnsw={"m": 8, "ef_construct": 64})
        own = tuple(float(axis == 5) for axis in range(WIDTH))
        store = server.store()
        try:
            await store.create("notes", foreign)
            theirs = Point(4711, {"text": "somebody else's"}, own)
            await store.copy("notes", [theirs], 1)
            desired = document(files, MODELS, on(server))
            async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
                told = await ready(client)
                assert told["points"] == 1
                assert "distance is Dot, wanted is Cosine" in told["message"]
                assert server.changes == [], "nothing is made or changed"
                near = {"vector": [2.0 * each for each in own], "mode": "Dense"}
                (hit,) = (await posted(client, f"{C}/search", near))["results"]
                assert (hit["id"], hit["payload"]) == (4711, {"text": "somebody else's"})
                await written(client)
                change = {"ids": [4711], "payload": {"shelf": 3}}
                await posted(client, f"{C}/points/payload?wait=true", change)
            described = await store.describe("notes")
            assert described is not None
            assert described.layout == foreign
            assert await store.describe("notes-1") is None
            assert await store.count("notes") == 4
            (changed,) = await store.retrieve("notes", [4711], vectors=True)
            assert changed.payload["text"] == "somebody else's"
            assert (changed.payload["shelf"], changed.dense) == (3, own)
        finally:
            await store.close()


async def test_a_collection_of_another_width_is_not_taken_over(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        store = server.store()
        try:
            await store.create("notes", Layout(WIDTH + 1))
        finally:
            await store.close()
        desired = document(files, MODELS, on(server))
        async with pod(tmp_path, desired, credentials_dir=keys) as (_, client):
            told = await said(client, "is in the store already")
            assert f"with {WIDTH + 1} dimensions" in told["message"]
            assert f"'encoder' gives {WIDTH}" in told["message"]
            assert server.changes == []


async def test_a_server_that_waits_to_be_told_to_build_its_index_is_told_once(
    tmp_path: pathlib.Path, files: pathlib.Path, keys: pathlib.Path
) -> None:
    async with qdrant_server(tmp_path / "server") as server:
        (keys / HOST).write_text(server.key)
        desired = document(files, MODELS, on(server))

        def grey(method: str, path: str, answer: Any) -> Any:
            """Say what Qdrant does after a restart, until anything of the collection is changed."""
            if (method, path) == ("GET", "/collections/notes-1") and not server.changes:
                answer["result"]["status"] = "grey"
            return answer

        async with pod(tmp_path, desired, credentials_dir=keys) as (runtime, client):
            await ready(client)
            await written(client)
            looking = runtime.services.collections._looking
            assert looking is not None
            looking.cancel()  # nobody else looks meanwhile
            held = runtime.services.collections.held("notes")
            await held.look()
            assert held.reported().is_indexed
            server.asked.clear()
            server.bodies.clear()
            server.edit = grey
            await held.look()
            assert not held.reported().is_indexed
            assert server.changes == [("PATCH", "/collections/notes-1")]
            body = server.bodies[server.asked.index(server.changes[0])]
            assert json.loads(body) == {"optimizers_config": {}}, "which changes nothing"
            await held.look()
            assert held.reported().is_indexed
            assert len(server.changes) == 1
