"""Collections, from a socket through real encoders to the real store and back."""

import os
import pathlib
import re
import signal
import uuid
from typing import Any

import httpx

from tests.support.collection_pods import (
    MODELS,
    PATIENCE,
    SPLIT,
    TEXTS,
    WIDTH,
    C,
    document,
    long_text,
    model,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.stores import eventually
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pod_report import CollectionState, ReportedCollection, ReportedModel
from ullage_runtime.app import Runtime


async def test_points_are_written_read_searched_changed_and_deleted(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    key = str(uuid.uuid4())
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        described = await ready(client)
        assert described["model"] == "encoder"
        assert described["dimensions"] == WIDTH
        assert described["points"] == 0

        points: list[dict[str, Any]] = [
            {"id": n, "text": t, "payload": {"n": n, "even": n % 2 == 0}} for n, t in TEXTS.items()
        ]
        own = [1.0] + [0.0] * (WIDTH - 1)
        points.append({"id": key, "vector": own, "payload": {"n": 4}})
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert answer.json() == {"status": "applied", "version": 1, "points": 4}

        # Reading.
        one = (await client.get(f"{C}/points/1")).json()
        assert one["payload"] == {"n": 1, "even": False, "text": TEXTS[1]}
        assert len(one["dense"]) == WIDTH
        assert len(one["sparse"]["indices"]) == 3, "stop words are left out"
        assert (await client.get(f"{C}/points/{key}")).json()["dense"] == own
        page = await posted(client, f"{C}/points/scroll", {"limit": 2})
        rest = await posted(client, f"{C}/points/scroll", {"limit": 9, "after": page["next"]})
        assert [p["id"] for p in page["points"] + rest["points"]] == [1, 2, 3, key]
        assert rest["next"] is None
        some = await posted(client, f"{C}/points/retrieve", {"ids": [3, 99]})
        assert [p["id"] for p in some["points"]] == [3]
        where = {"must": [{"key": "even", "match": {"value": True}}]}
        assert await posted(client, f"{C}/points/count", {"filter": where}) == {"count": 1}

        # Searching: the very text of a point is what is nearest to it.
        for mode in ("Dense", "Sparse", "Hybrid"):
            for fusion in ("RRF", "DBSF"):
                body: dict[str, Any] = {
                    "query": TEXTS[3],
                    "mode": mode,
                    "fusion": {"type": fusion},
                    "explain": True,
                }
                found = await posted(client, f"{C}/search", body)
                best = found["results"][0]
                assert best["id"] == 3
                assert best["payload"] == {"n": 3, "even": False, "text": TEXTS[3]}
                lists = {"Dense": {"dense"}, "Sparse": {"sparse"}}.get(mode, {"dense", "sparse"})
                assert set(best["explain"]) == lists
                assert all(part["rank"] == 1 for part in best["explain"].values())
                assert found["degraded"] == []
        near = {"vector": own, "mode": "Dense", "score_threshold": 0.99}
        (only,) = (await posted(client, f"{C}/search", near))["results"]
        assert only["id"] == key
        filtered = {"query": TEXTS[3], "filter": where}
        assert [h["id"] for h in (await posted(client, f"{C}/search", filtered))["results"]] == [2]
        pages = [
            (await posted(client, f"{C}/search", {"query": "fire", "limit": 2, "offset": o}))[
                "results"
            ]
            for o in (0, 2)
        ]
        assert len({h["id"] for p in pages for h in p}) == 4
        groups = {"query": "fire", "mode": "Dense", "group_by": "even"}
        assert len((await posted(client, f"{C}/search", groups))["results"]) == 3

        # Changing.
        change: dict[str, Any] = {"ids": [1], "payload": {"tag": "a"}}
        assert (await posted(client, f"{C}/points/payload?wait=true", change))["points"] == 1
        change = {"filter": where, "payload": {"tag": "b"}, "replace": True}
        assert (await posted(client, f"{C}/points/payload?wait=true", change))["points"] == 1
        payloads = [(await client.get(f"{C}/points/{n}")).json()["payload"] for n in (1, 2)]
        assert payloads == [{"n": 1, "even": False, "text": TEXTS[1], "tag": "a"}, {"tag": "b"}]
        assert len((await client.get(f"{C}/points/2")).json()["dense"]) == WIDTH

        # Deleting.
        await posted(client, f"{C}/points/delete?wait=true", {"ids": [1, key]})
        gone = {"filter": {"must": [{"key": "tag", "match": {"value": "b"}}]}}
        assert (await posted(client, f"{C}/points/delete?wait=true", gone))["points"] == 1
        assert await posted(client, f"{C}/points/count", {}) == {"count": 1}
        message = refused(await client.get(f"{C}/points/1"), 404, "point_not_found")
        assert message == "collection 'notes' has no point 1"
        (left,) = (await posted(client, f"{C}/search", {"query": TEXTS[1]}))["results"]
        assert left["id"] == 3


REFUSED: list[tuple[str, Any, str]] = [
    (
        "points",
        {"points": [{"id": 1, "vector": [1.0, 2.0]}]},
        f"has 2 dimensions; the .* {WIDTH}",
    ),
    ("points", {"points": [{"id": -1, "text": "a"}]}, r"points\[0\].id: an id must be"),
    ("points", {"points": [{"id": "x", "text": "a"}]}, "UUID"),
    ("points", {"points": [{"id": 1}]}, "needs a text or a vector"),
    ("points", {"points": []}, "points"),
    ("points", {"points": [{"id": 1, "text": "a"}], "wait": True}, "wait"),
    ("points", {"points": [{"id": 1, "text": "a"}] * 2}, "id 1 more than once"),
    ("points", {"points": [{"id": 1, "text": "a", "payload": {"_v": 1}}]}, "_v is a name"),
    ("points", {"points": [{"id": 1, "text": "a", "payload": {"n": 1 << 70}}]}, "64-bit"),
    (
        "points",
        {"points": [{"id": 1, "vector": {"sparse": {"indices": [1, 1], "values": [1, 2]}}}]},
        "distinct",
    ),
    ("search", {"query": "a", "limit": 0}, "limit"),
    ("search", {"query": "a", "limit": 100_000}, "limit"),
    ("search", {"query": "a", "limit": 900, "offset": 900}, "offset \\+ limit is 1800"),
    ("search", {}, "query is needed"),
    ("search", {"query": "a", "filter": {"must": [{"what": 1}]}}, "filter"),
    ("search", {"query": "a", "filter": {"must": [{"key": "n"}]}}, "filter"),
    ("search", {"vector": [1.0], "mode": "Dense"}, f"1 dimensions; the .* {WIDTH}"),
    ("points/delete", {"ids": [1], "filter": {"must": []}}, "either ids or a filter"),
    ("points/delete", {}, "either ids or a filter"),
    ("points/delete", {"filter": {}}, "either ids or a filter"),
    ("documents", {"documents": [{"id": "a", "text": "b", "metadata": {"text": 1}}]}, "chunks"),
]


async def test_what_cannot_be_done_is_refused_with_what_to_do(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        for path, body, says in REFUSED:
            method = "PUT" if path == "points" else "POST"
            answer = await client.request(method, f"{C}/{path}", json=body)
            code = "dimension_mismatch" if "dimensions" in says else "invalid_request_error"
            message = refused(answer, 400, code)
            assert re.search(says, message), (body, message)
        assert (await posted(client, f"{C}/points/count", {}))["count"] == 0


async def test_nothing_of_an_unknown_name_is_found(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        answer = await client.get("/v1/collections/nothing")
        assert refused(answer, 404, "collection_not_found") == (
            "there is no collection 'nothing'; there are: notes"
        )
        await ready(client)
        refused(await client.get("/v1/operations/nothing"), 404, "operation_not_found")
        refused(await client.get(f"{C}/documents/nothing"), 404, "document_not_found")


async def test_documents_become_chunks_that_are_found_replaced_and_forgotten(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes(**SPLIT))) as (_, client):
        await ready(client)
        documents = [
            {"id": f"doc/{n}", "text": long_text(n), "metadata": {"n": n}} for n in range(3)
        ]
        body = {"documents": [*documents, {"id": "empty", "text": "  "}]}
        operation = await posted(client, f"{C}/documents?wait=true", body, 202)
        assert operation["status"] == "completed"
        assert (operation["total"], operation["done"], operation["failed"]) == (4, 3, 1)
        assert operation["errors"] == {"empty": "the document has no text"}
        chunks = operation["chunks"]
        assert chunks > 6
        assert (await posted(client, f"{C}/points/count", {}))["count"] == chunks
        assert (await client.get(f"/v1/operations/{operation['id']}")).json() == operation

        found = await posted(
            client, f"{C}/search", {"query": long_text(2)[:60], "group_by": "document"}
        )
        documents_found = [hit["payload"]["document"] for hit in found["results"]]
        assert sorted(documents_found) == ["doc/0", "doc/1", "doc/2"]
        assert all(hit["payload"]["text"] for hit in found["results"])

        # The same again changes nothing; a shorter one leaves no chunk behind.
        again = await posted(client, f"{C}/documents?wait=true", {"documents": documents}, 202)
        assert again["unchanged"] == 3
        short = {"documents": [{"id": "doc/0", "text": "the fox"}]}
        await posted(client, f"{C}/documents?wait=true", short, 202)
        where = {"must": [{"key": "document", "match": {"value": "doc/0"}}]}
        assert (await posted(client, f"{C}/points/count", {"filter": where}))["count"] == 1
        kept = (await client.get(f"{C}/documents/empty")).json()
        assert (kept["status"], kept["text"]) == ("Failed", "  ")

        answer = await client.delete(f"{C}/documents/empty", params={"wait": True})
        assert answer.json()["points"] == 0
        refused(await client.get(f"{C}/documents/empty"), 404, "document_not_found")


async def test_a_restart_goes_on_with_documents_and_doubles_nothing(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    desired = document(files, MODELS, notes(**SPLIT))
    documents = [{"id": f"doc-{n}", "text": long_text(n)} for n in range(12)]
    async with pod(tmp_path, desired) as (_, client):
        await ready(client)
        operation = await posted(client, f"{C}/documents", {"documents": documents}, 202)
        assert operation["status"] == "running"
    async with pod(tmp_path, desired) as (_, client):
        await ready(client)

        async def is_completed() -> bool:
            operation.update((await client.get(f"/v1/operations/{operation['id']}")).json())
            return bool(operation["status"] == "completed")

        await eventually(is_completed, PATIENCE, every=0.1)
        assert operation["done"] == 12
        count = (await posted(client, f"{C}/points/count", {}))["count"]
        assert count == operation["chunks"]


async def test_a_hybrid_search_goes_on_with_words_when_the_model_is_away(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        suspended = MODELS[0].model_copy(update={"suspended": True, "ordinals": ()})
        await runtime.documents.accept(document(files, (suspended,), notes()).sealed(2))
        found = await posted(client, f"{C}/search", {"query": "blue fire"})
        assert found["results"][0]["id"] == 3
        assert found["degraded"] == ["dense"]
        assert found["mode"] == "Sparse"
        answer = await client.post(f"{C}/search", json={"query": "blue", "mode": "Dense"})
        refused(answer, 503, "model_suspended")


async def test_a_killed_owner_is_back_with_every_point(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        owner = runtime.services.collections._owner
        assert owner is not None
        assert owner.pid is not None
        os.kill(owner.pid, signal.SIGKILL)
        later = [{"id": 10 + n, "text": text} for n, text in TEXTS.items()]
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": later})
        assert answer.status_code == 200, answer.text
        assert (await posted(client, f"{C}/points/count", {}))["count"] == 6


async def test_what_only_a_reindex_changes_is_said_and_what_there_is_is_served(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    both = (*MODELS, model("narrow", "narrow.gguf"))
    async with pod(tmp_path, document(files, both, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        wanted = notes(
            embedding={"modelDeployment": "narrow"},
            profile="HighAccuracy",
            dense={"distance": "Dot"},
        )
        await runtime.documents.accept(document(files, both, wanted).sealed(2))
        message = (await client.get(C)).json()["message"]
        assert message.startswith("serves what it has; a reindex is needed: distance is Cosine")
        assert "model is encoder, wanted is narrow" in message
        found = await posted(client, f"{C}/search", {"query": TEXTS[2]})
        assert found["results"][0]["id"] == 2


async def test_a_collection_waits_for_its_model_and_says_so(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    ranker = model("encoder", "encoder.gguf", Task.RERANK)
    async with pod(tmp_path, document(files, (ranker,), notes())) as (runtime, client):

        async def has_problem() -> bool:
            return "does not embed texts" in (await client.get(C)).json()["message"]

        await eventually(has_problem, PATIENCE, every=0.1)
        answer = await client.post(f"{C}/search", json={"query": "a"})
        message = refused(answer, 503, "collection_unavailable")
        assert message.startswith("collection 'notes' is not ready: model 'encoder' is for Rerank")
        assert int(answer.headers["retry-after"]) > 0
        await runtime.documents.accept(document(files, MODELS, notes()).sealed(2))
        await ready(client)
        await runtime.documents.accept(document(files, MODELS).sealed(3))
        refused(await client.get(C), 404, "collection_not_found")


async def test_another_model_never_takes_over_from_one_that_a_collection_embeds_with(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    write_encoder(files / "stranger.gguf", Encoder(width=WIDTH, seed=8))
    wanted = document(files, MODELS, notes())

    async def asked_for(
        file: str, sequence: int, reason: Reason, threads: int = 1
    ) -> ReportedModel:
        target = model("encoder", f"{file}.gguf").target
        target = target.model_copy(update={"engine": EngineSettings(threads=threads)})
        changed = MODELS[0].model_copy(update={"target": target, "generation": sequence})
        other = wanted.model_copy(update={"models": (changed,)})
        await runtime.documents.accept(other.sealed(sequence))

        async def is_so() -> bool:
            (found,) = runtime.models.report().models
            # What was said of the one before stays until the file is fetched.
            is_fetched = found.target is not None and found.target.uri == target.uri
            return found.generation == sequence and is_fetched and found.reason is reason

        await eventually(is_so, PATIENCE, every=0.1)
        (found,) = runtime.models.report().models
        return found

    async def found_for_fox() -> list[Any]:
        search = {"query": "the red fox", "limit": 3}
        results = (await posted(client, f"{C}/search", search))["results"]
        return [(each["id"], round(each["score"], 4)) for each in results]

    async with pod(tmp_path, wanted) as (runtime, client):
        await ready(client)
        points = [{"id": i, "text": text} for i, text in TEXTS.items()]
        written = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert written.status_code == httpx.codes.OK, written.text
        before = await found_for_fox()
        blocked = await asked_for("stranger", 2, Reason.EMBEDDING_IN_USE)
        assert blocked.transition is Transition.BLOCKED_BY_FAILED_LOAD
        assert "'notes'" in blocked.message
        assert "a cosine of " in blocked.message
        blocked = await asked_for("narrow", 3, Reason.EMBEDDING_IN_USE)
        assert "32 dimensions" in blocked.message
        assert f"have {WIDTH}" in blocked.message
        assert await found_for_fox() == before
        # The same weights in another file, run otherwise, are another revision of the same model.
        write_encoder(files / "copy.gguf", Encoder(width=WIDTH))
        served = await asked_for("copy", 4, Reason.SERVING, threads=2)
        assert served.active is not None
        assert served.active.uri == "file:copy.gguf"
        assert await found_for_fox() == before


def entry(runtime: Runtime) -> ReportedCollection:
    found = runtime.models.report().collection("notes")
    assert found is not None
    return found


async def reported(runtime: Runtime, state: CollectionState) -> ReportedCollection:
    async def is_so() -> bool:
        return entry(runtime).state is state

    await eventually(is_so, PATIENCE, every=0.05)
    return entry(runtime)


async def test_the_pods_report_says_how_a_collection_stands_and_rises_with_it(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        first = await reported(runtime, CollectionState.READY)
        assert (first.physical, first.epoch, first.model) == ("notes-1", 1, "encoder")
        assert (first.dimensions, first.points, first.is_indexed) == (WIDTH, 0, True)
        sequence = runtime.models.report().sequence

        points = [{"id": n, "text": t} for n, t in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})

        async def counted() -> bool:
            return entry(runtime).points == len(TEXTS)

        await eventually(counted, PATIENCE, every=0.1)
        assert runtime.models.report().sequence > sequence

        other = notes(dense={"distance": "Dot"}).model_copy(update={"generation": 2})
        await runtime.documents.accept(document(files, MODELS, other).sealed(2))
        after = entry(runtime)
        assert after.generation == 2
        assert after.differences == ("distance is Cosine, wanted is Dot",)
        assert after.state is CollectionState.READY


async def test_what_is_dropped_is_gone_from_the_disk_and_a_new_one_begins_empty(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        secret = "the red fox jumped"
        await client.put(
            f"{C}/points", params={"wait": True}, json={"points": [{"id": 1, "text": secret}]}
        )
        dropped = notes().model_copy(update={"dropped": True})
        await runtime.documents.accept(document(files, MODELS, dropped).sealed(2))
        await reported(runtime, CollectionState.DROPPED)
        refused(await client.get(f"{C}/points/1"), 503, "collection_unavailable")
        kept = [p for p in (tmp_path / "state").rglob("*") if p.is_file()]
        assert [p for p in kept if secret.encode() in p.read_bytes()] == []
        assert not (tmp_path / "state/collections/notes").exists()

        # Said again, as after a restart; and then a new one of the name.
        await runtime.documents.accept(document(files, MODELS, dropped).sealed(3))
        await reported(runtime, CollectionState.DROPPED)
        await runtime.documents.accept(document(files, MODELS, notes()).sealed(4))
        assert (await ready(client))["points"] == 0


async def test_metrics_and_the_report_tell_how_a_collection_fares(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        await posted(client, f"{C}/search", {"query": "fox"})
        held = runtime.services.collections.held("notes")
        held.looks = 0
        await held.look()
        runtime.services.collections.on_change()
        found = entry(runtime)
        assert (found.points, found.pending_changes, found.recall_percent) == (3, 0, 100)
        text = (await client.get("/metrics")).text
        for series in (
            'ullage_collection_points{collection="notes"} 3.0',
            'ullage_collection_state{collection="notes",state="Ready"} 1.0',
            'ullage_collection_indexed{collection="notes"} 1.0',
            'ullage_collection_recall_ratio{collection="notes"} 1.0',
            *(
                f'ullage_search_seconds_count{{collection="notes",stage="{stage}"}} 1.0'
                for stage in ("embed", "store", "total")
            ),
        ):
            assert series in text
        await runtime.documents.accept(document(files, MODELS).sealed(2))
        assert 'collection="notes"' not in (await client.get("/metrics")).text


async def test_a_full_disk_accepts_nothing_and_loses_nothing(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        changes = runtime.services.collections.find("notes").changes

        async def pages(limit: int) -> None:
            # SQLite's own bound on a file fails as a disk does that is full.
            await changes.on_file(
                lambda: changes._file._db.execute(f"PRAGMA max_page_count = {limit}")
            )

        await pages(1)
        payload = {"p": "x" * 9000}
        large = [{"id": 10 + n, "text": "the fox " * 8, "payload": payload} for n in range(9)]
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": large})
        message = refused(answer, 507, "insufficient_storage")
        assert "no room left, so nothing was accepted" in message
        assert (await posted(client, f"{C}/points/count", {}))["count"] == len(TEXTS)
        await posted(client, f"{C}/search", {"query": "fox"})
        await pages(1 << 30)
        answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": large})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert (await posted(client, f"{C}/points/count", {}))["count"] == len(TEXTS) + 9


async def test_payload_indexes_that_are_wanted_later_are_built_at_once(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        points = [{"id": n, "text": t, "payload": {"shelf": n}} for n, t in TEXTS.items()]
        await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
        collection = runtime.services.collections.find("notes")
        for sequence, kind in enumerate(("Integer", "Keyword"), 2):
            wanted = notes(payloadIndexes=[{"field": "shelf", "type": kind}])
            await runtime.documents.accept(document(files, MODELS, wanted).sealed(sequence))

            async def is_built(kind: str = kind) -> bool:
                found = await collection.store.describe(collection.physical)
                return found is not None and found.payload_indexes == {"shelf": kind.lower()}

            await eventually(is_built, 30, every=0.05)
        assert (await posted(client, f"{C}/points/count", {}))["count"] == len(TEXTS)
