"""How collections are named: aliases here and in the store, and which names a key is told."""

import pathlib
from typing import Any

import httpx

from tests.support.collection_pods import (
    HEADS,
    C,
    document,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from tests.support.stores import eventually
from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_runtime.app import Runtime
from ullage_runtime.http.auth import entry_line
from ullage_runtime.retrieval.stores.port import Store

TEXT = "the red fox jumped"


def store_of(runtime: Runtime) -> Store:
    return runtime.services.collections.find("notes").store


def other(**spec: Any) -> DesiredCollection:
    return notes(**spec).model_copy(update={"name": "other"})


async def write(client: httpx.AsyncClient, path: str = C) -> None:
    points = {"points": [{"id": 1, "text": TEXT}]}
    answer = await client.put(f"{path}/points", params={"wait": True}, json=points)
    assert answer.status_code == 200, answer.text


async def test_an_alias_is_a_name_like_any_other_here_and_in_the_store(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    wanted = document(files, HEADS, notes(aliases=["docs", "Old.Notes"]))
    async with pod(tmp_path, wanted) as (runtime, client):
        described = await ready(client)
        assert described["aliases"] == ["docs", "Old.Notes"]
        await write(client, "/v1/collections/docs")
        assert (await ready(client, "docs"))["name"] == "notes"
        for body in ({"collection": "Old.Notes"}, {"collection": "docs"}):
            found = await posted(client, "/search", {**body, "query": TEXT})
            assert found["collection"] == "notes"
            assert found["results"][0]["id"] == 1
        session = await posted(client, "/v1/sessions", {"collection": "docs"}, 201)
        assert session["collection"] == "notes"

        # Outsiders find it by the same names.
        store = store_of(runtime)
        assert await store.aliases() == dict.fromkeys(("notes", "docs", "Old.Notes"), "notes-1")
        assert await store.count("docs") == 1

        # One that is not wanted any more goes, a new one comes, at once.
        await runtime.documents.accept(document(files, HEADS, notes(aliases=["new"])).sealed(2))
        refused(await client.get("/v1/collections/docs"), 404, "collection_not_found")
        assert (await client.get("/v1/collections/new")).json()["name"] == "notes"

        async def is_told() -> bool:
            return await store.aliases() == dict.fromkeys(("notes", "new"), "notes-1")

        await eventually(is_told)

    # After a restart with another spec, the store follows too.
    async with pod(tmp_path, document(files, HEADS, notes())) as (runtime, client):
        await ready(client)
        assert await store_of(runtime).aliases() == {"notes": "notes-1"}


async def test_an_alias_that_somebody_else_has_in_the_store_stays_theirs_and_is_named(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes(), other())) as (runtime, client):
        await ready(client)
        await ready(client, "other")
        store = store_of(runtime)
        await store.point_alias("shared", "other-1")
        wanted = document(files, HEADS, notes(aliases=["mine", "shared"]), other())
        await runtime.documents.accept(wanted.sealed(2))

        async def is_told() -> bool:
            message = (await client.get(C)).json()["message"]
            return "the store has alias 'shared' for 'other-1' already" in message

        await eventually(is_told)
        aliases = await store.aliases()
        assert aliases["shared"] == "other-1"
        assert aliases["mine"] == "notes-1"
        # Here it is a name of the collection all the same, which goes on answering.
        assert (await client.get("/v1/collections/shared")).json()["ready"]
        # Once it is free it is taken.
        await store.drop_alias("shared")

        async def is_taken() -> bool:
            return (await store.aliases()).get("shared") == "notes-1"

        await eventually(is_taken)


async def test_query_settings_that_are_overridden_act_at_once_and_index_settings_wait(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, HEADS, notes())) as (runtime, client):
        await ready(client)
        await write(client)
        params = {"hnsw_ef": 300, "exact": True, "quantization": {"oversampling": "4.0"}}
        at_once = document(files, HEADS, notes(overrides={"params": params}))
        await runtime.documents.accept(at_once.sealed(2))
        found = runtime.services.collections.find("notes")
        assert found.params["hnsw_ef"] == 300
        assert found.params["quantization"] == {"rescore": True, "oversampling": 4.0}
        assert (await client.get(C)).json()["message"] == ""
        assert (await posted(client, f"{C}/search", {"query": TEXT}))["results"]
        overrides = {
            "hnsw_config": {"m": 24},
            "quantization_config": {"binary": {"always_ram": True}},
        }
        later = document(files, HEADS, notes(overrides=overrides))
        await runtime.documents.accept(later.sealed(3))
        message = (await client.get(C)).json()["message"]
        assert "hnsw is {'m': 16, 'ef_construct': 128}, wanted is {'m': 24" in message
        assert "quantization is" in message
        assert found.params["hnsw_ef"] == 128

    # A new collection is built so from the start.
    async with pod(tmp_path / "new", later) as (runtime, client):
        assert (await ready(client))["message"] == ""
        described = await store_of(runtime).describe("notes-1")
        assert described is not None
        assert described.layout.hnsw == {"m": 24, "ef_construct": 128}
        assert described.layout.quantization == {"binary": {"always_ram": True}}


async def test_a_key_is_told_only_the_collections_whose_model_it_may_use(
    tmp_path: pathlib.Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "few").write_text(entry_line("key-few", ("encoder",)))
    (keys / "all").write_text(entry_line("key-all"))
    models = FakeModels([desired_model(n, task=Task.EMBEDDING) for n in ("encoder", "secret")])
    hidden = other(embedding={"modelDeployment": "secret"})
    async with served(tmp_path, models, api_keys_dir=keys) as (runtime, client):
        await runtime.services.collections.apply([notes(), hidden])
        client.headers["authorization"] = "Bearer key-all"
        for name in ("notes", "other"):
            await ready(client, name)
        listed = (await client.get("/v1/collections")).json()["collections"]
        assert [each["name"] for each in listed] == ["notes", "other"]
        documents = {"documents": [{"id": "a", "text": "a secret"}]}
        path = "/v1/collections/other/documents"
        operation = await posted(client, path, documents, 202)

        client.headers["authorization"] = "Bearer key-few"
        listed = (await client.get("/v1/collections")).json()["collections"]
        assert [each["name"] for each in listed] == ["notes"]
        refused(await client.get("/v1/collections/other"), 403, "permission_denied")
        answer = await client.get(f"/v1/operations/{operation['id']}")
        refused(answer, 404, "operation_not_found")
        body = {"query": "a", "operation_uuid": operation["id"]}
        refused(await client.post("/search", json=body), 404, "operation_not_found")
        nothing = await client.get("/v1/collections/nothing")
        unsaid = await client.post("/search", json={"query": "a"})
        for message in (
            refused(nothing, 404, "collection_not_found"),
            refused(unsaid, 400, "invalid_request_error"),
        ):
            assert message.endswith("there are: notes")
