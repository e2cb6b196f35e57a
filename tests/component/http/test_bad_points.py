"""Numbers that are none, ranges that are passed, ids that come twice: by HTTP, to a real store."""

import asyncio
import json
import pathlib
from typing import Any

import httpx
import pytest

from tests.support.collection_pods import (
    MODELS,
    SPLIT,
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

REST = ", 0.0" * (WIDTH - 1)
JSONL = "application/jsonl"
NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e400")
FINITE_IN_JSON_ONLY = ("3.5e38", "-1e39", "1e300")
"""What the 32 bits of a vector's number cannot hold."""

IN_VECTORS = [
    ("PUT", "points", '{"points": [{"id": 1, "vector": [%s' + REST + "]}]}"),
    ("PUT", "points", '{"points": [{"id": 1, "vector": {"dense": [%s' + REST + "]}}]}"),
    (
        "PUT",
        "points",
        '{"points": [{"id": 1, "vector": {"sparse": {"indices": [3], "values": [%s]}}}]}',
    ),
    ("POST", "search", '{"mode": "Dense", "vector": [%s' + REST + "]}"),
]
ANYWHERE = [
    *IN_VECTORS,
    ("PUT", "points", '{"points": [{"id": 1, "text": "a", "payload": {"n": [%s]}}]}'),
    ("POST", "points/payload", '{"ids": [1], "payload": {"n": %s}}'),
    ("POST", "documents", '{"documents": [{"id": "a", "text": "b", "metadata": {"n": %s}}]}'),
    ("POST", "search", '{"query": "a", "score_threshold": %s}'),
    ("POST", "search", '{"query": "a", "filter": {"must": [{"key": "n", "range": {"gte": %s}}]}}'),
    ("POST", "points/count", '{"filter": {"must": [{"key": "n", "range": {"lt": %s}}]}}'),
    ("POST", "points/delete", '{"filter": {"must": [{"key": "n", "range": {"gt": %s}}]}}'),
]


async def filled(client: httpx.AsyncClient) -> None:
    await ready(client)
    points = [{"id": n, "text": text, "payload": {"n": n}} for n, text in TEXTS.items()]
    answer = await client.put(f"{C}/points", params={"wait": True}, json={"points": points})
    assert answer.status_code == httpx.codes.OK, answer.text


async def test_numbers_that_are_not_finite_are_refused_wherever_they_come_and_change_nothing(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await filled(client)
        tried = [(each, number) for each in ANYWHERE for number in NO_NUMBERS]
        tried += [(each, number) for each in IN_VECTORS for number in FINITE_IN_JSON_ONLY]
        for (method, path, body), number in tried:
            content = body % number
            answer = await client.request(
                method,
                f"{C}/{path}",
                content=content,
                headers={"content-type": "application/json"},
            )
            message = refused(answer, 400, "invalid_request_error")
            # Of an object of vectors the first complaint is that it is no list.
            assert "finite" in message or '"vector": {' in content, (content[:80], message)
        line = '{"id": 9, "vector": [%s' + REST + "]}"
        for number in (*NO_NUMBERS, *FINITE_IN_JSON_ONLY):
            answer = await client.post(
                f"{C}/points/import", content=line % number, headers={"content-type": JSONL}
            )
            refused(answer, 400, "invalid_request_error")
        assert await count(client) == len(TEXTS), "a filter without a bound would find them all"
        # The largest that there is room for is a number like any other.
        largest = {"points": [{"id": 9, "vector": [3.4028234e38] + [0.0] * (WIDTH - 1)}]}
        answer = await client.put(f"{C}/points", params={"wait": True}, json=largest)
        assert answer.status_code == httpx.codes.OK, answer.text


async def test_an_integer_that_no_store_knows_is_refused_in_a_filter(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await filled(client)
        where = {"filter": {"must": [{"key": "n", "match": {"value": 1 << 70}}]}}
        answer = await client.post(f"{C}/points/count", json=where)
        refused(answer, 400, "invalid_request_error")


RANGES: list[tuple[str, dict[str, Any], str, int, int]] = [
    (f"{C}/search", {"query": "a"}, "limit", 1, 1000),
    (f"{C}/search", {"query": "a", "limit": 1}, "offset", 0, 999),
    (f"{C}/search", {"query": "a", "group_by": "n"}, "group_size", 1, 100),
    (f"{C}/recommend", {"positive": [1]}, "limit", 1, 1000),
    (f"{C}/points/scroll", {}, "limit", 1, 1000),
    ("/search", {"query": "a", "collection": "notes"}, "limit", 1, 1000),
    ("/hybrid_search", {"query": "a", "collection": "notes"}, "limit", 1, 1000),
    ("/v1/sessions/{session}/search", {"query": "a"}, "limit", 1, 1000),
    ("/v1/sessions/{session}/recall", {"query": "a"}, "limit", 1, 100),
]


async def test_a_range_that_is_passed_is_named_with_both_its_ends(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await filled(client)
        session = (await posted(client, "/v1/sessions", {"collection": "notes"}, 201))["id"]
        for path, body, name, least, most in RANGES:
            url = path.format(session=session)
            for wrong in (least - 1, -5, most + 1, 1 << 40, 10**30, 2.5, "many", None):
                answer = await client.post(url, json={**body, name: wrong})
                message = refused(answer, 400, "invalid_request_error")
                assert message == f"{name}: must be an integer from {least} to {most}", path
            for right in (least, most):
                answer = await client.post(url, json={**body, name: right})
                assert answer.status_code == httpx.codes.OK, answer.text
        searches = {"searches": [{"query": "a"}, {"query": "a", "limit": 0}]}
        answer = await client.post(f"{C}/search/batch", json=searches)
        message = refused(answer, 400, "invalid_request_error")
        assert message == "searches[1].limit: must be an integer from 1 to 1000"


def version(number: int) -> str:
    """A document of several chunks, more in each version."""
    paragraph = f"the red fox in version {number} jumped over the water tank of the model. "
    return "\n\n".join(f"{paragraph * 3}part {part}" for part in range(number + 1))


async def test_an_id_that_comes_twice_in_one_request_is_refused_and_nothing_is_taken(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes())) as (_, client):
        await ready(client)
        twice = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "3"}]
        answer = await client.post(f"{C}/documents", json={"documents": twice})
        message = refused(answer, 400, "invalid_request_error")
        assert message == "documents has id 'a' more than once"
        lines = "\n".join(json.dumps(each) for each in twice)
        answer = await client.post(
            f"{C}/documents/upload", content=lines, headers={"content-type": JSONL}
        )
        assert "'a' more than once" in refused(answer, 400, "invalid_request_error")
        refused(await client.get(f"{C}/documents/b"), 404, "document_not_found")
        key = "123E4567-E89B-42D3-A456-426614174000"
        for one, other in ((7, 7), (key, key.lower()), (key, key.replace("-", ""))):
            points = [{"id": one, "text": "a"}, {"id": other, "text": "b"}]
            answer = await client.put(f"{C}/points", json={"points": points})
            assert "more than once" in refused(answer, 400, "invalid_request_error")
        assert await count(client) == 0


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
async def test_of_an_id_that_comes_in_several_requests_the_last_one_accepted_is_there_and_whole(
    tmp_path: pathlib.Path,
    files: pathlib.Path,
    at_once: bool,  # noqa: FBT001 - pytest gives it by its name
) -> None:
    async with pod(tmp_path, document(files, MODELS, notes(**SPLIT))) as (_, client):
        await ready(client)
        versions = (3, 1, 4, 2)

        async def taken(number: int) -> dict[str, Any]:
            body = {"documents": [{"id": "a", "text": version(number)}]}
            done: dict[str, Any] = await posted(client, f"{C}/documents?wait=true", body, 202)
            return done

        async def written(number: int) -> int:
            body = {"points": [{"id": 1, "text": f"fox {number}", "payload": {"n": number}}]}
            answer = await client.put(f"{C}/points", params={"wait": True}, json=body)
            return int(answer.json()["version"])

        if at_once:
            operations = await asyncio.gather(*map(taken, versions))
            accepted = await asyncio.gather(*map(written, versions))
        else:
            operations = [await taken(number) for number in versions]
            accepted = [await written(number) for number in versions]
        outcomes = [each["done"] + each["superseded"] + each["unchanged"] for each in operations]
        assert outcomes == [1] * len(versions)

        kept = (await client.get(f"{C}/documents/a")).json()
        assert kept["status"] == "Done"
        if not at_once:
            assert kept["text"] == version(versions[-1])
        where = {"filter": {"must": [{"key": "document", "match": {"value": "a"}}]}}
        page = await posted(client, f"{C}/points/scroll", {**where, "limit": 1000})
        chunks = sorted(page["points"], key=lambda point: point["payload"]["chunk"])
        assert len(chunks) == kept["chunks"]
        assert all(each["payload"]["text"] in kept["text"] for each in chunks), "of one version"
        last = versions[accepted.index(max(accepted))]
        point = (await client.get(f"{C}/points/1")).json()
        assert point["payload"] == {"n": last, "text": f"fox {last}"}
        body = {"query": f"fox {last}", "mode": "Dense", "filter": {"must": [{"has_id": [1]}]}}
        (hit,) = (await posted(client, f"{C}/search", body))["results"]
        assert hit["score"] == pytest.approx(1.0, abs=1e-3), "its vector is of its text"
