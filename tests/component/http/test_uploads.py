"""Files as documents and streams as points, through a pod's API."""

import io
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psutil
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from tests.support.collection_pods import (
    MODELS,
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
from tests.support.pdf_files import pdf
from ullage_runtime.app import Runtime

JSONL = "application/jsonl"


@pytest.fixture
async def place(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        yield runtime, client


async def sent(
    client: httpx.AsyncClient, what: str, kind: str, content: Any, **params: Any
) -> httpx.Response:
    return await client.post(
        f"{C}/{what}", content=content, headers={"content-type": kind}, params=params
    )


async def test_files_of_each_format_are_found(place: tuple[Runtime, httpx.AsyncClient]) -> None:
    _, client = place
    lines = [{"id": "line", "text": "blue memory of fire", "metadata": {"shelf": 3}}]
    for name, kind, data in (
        ("page", "text/html", b"<title>Fox</title><script>x</script><p>the red <i>fox</i></p>"),
        ("paper", "application/pdf", pdf("how the water tank", title="Tank")),
        ("latin", "text/plain; charset=windows-1252", "für einen Docht".encode("latin-1")),
        (None, JSONL, "\n".join(json.dumps(each) for each in lines).encode()),
    ):
        given = {} if name is None else {"id": name}
        answer = await sent(client, "documents/upload", kind, data, wait=True, **given)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        assert answer.json()["done"] == 1
    for words, name, field in (
        ("fox", "page", {"title": "Fox", "text": "the red fox"}),
        ("tank", "paper", {"title": "Tank"}),
        ("Docht", "latin", {"text": "für einen Docht"}),
        ("fire", "line", {"shelf": 3}),
    ):
        found = await posted(client, f"{C}/search", {"query": words, "mode": "Sparse"})
        payload = found["results"][0]["payload"]
        assert payload.items() >= {"document": name, **field}.items()


async def test_the_file_that_a_text_was_read_from_is_kept_as_it_was(
    place: tuple[Runtime, httpx.AsyncClient],
) -> None:
    _, client = place
    paper, name = pdf("how the water tank", title="Tank"), "papers/tank.pdf"
    for kind, data, given in (
        ("application/pdf", paper, name),
        ("text/plain", b"the red fox", "fox.txt"),
    ):
        answer = await sent(client, "documents/upload", kind, data, wait=True, id=given)
        assert answer.json()["done"] == 1, answer.text
    original = await client.get(f"{C}/originals/{name}")
    assert original.content == paper
    assert original.headers["content-type"] == "application/pdf"
    assert original.headers["content-disposition"] == "attachment"
    shown = (await client.get(f"{C}/documents/{name}")).json()
    assert shown["original"] == "application/pdf"
    assert "water tank" in shown["text"]
    told = refused(await client.get(f"{C}/originals/fox.txt"), 404, "document_not_found")
    assert "was text already" in told

    # The same text of another file leaves the document as it is, and keeps the new file.
    other = pdf("how the water tank", title="Tank") + b"\n% again\n"
    answer = await sent(client, "documents/upload", "application/pdf", other, wait=True, id=name)
    assert answer.json()["unchanged"] == 1, answer.text
    assert (await client.get(f"{C}/originals/{name}")).content == other
    # A text in its place has no file, and neither has a document that is gone.
    changed = {"documents": [{"id": name, "text": "blue fire"}]}
    await posted(client, f"{C}/documents?wait=true", changed, 202)
    refused(await client.get(f"{C}/originals/{name}"), 404, "document_not_found")
    await sent(client, "documents/upload", "application/pdf", paper, wait=True, id=name)
    assert (await client.delete(f"{C}/documents/{name}")).status_code == 200
    refused(await client.get(f"{C}/originals/{name}"), 404, "document_not_found")


REFUSED: list[tuple[str, bytes, dict[str, str], str]] = [
    ("application/pdf", b"nonsense", {"id": "x"}, "document 'x': it is no sound PDF"),
    ("text/plain", b"caf\xe9", {"id": "x"}, "say its encoding in the Content-Type"),
    ("text/plain", b"fine", {}, "the document's id is needed"),
    ("image/png", b"\x89PNG", {"id": "x"}, "'image/png' cannot be read; known are text/plain"),
    (JSONL, b'{"id": "a", "text": "x"}\nno', {}, "line 2 is no JSON"),
    (JSONL, b'{"id": "a"}', {}, "line 1: text: Field required"),
    (JSONL, b"", {}, "there is no document in it"),
    (JSONL, b"{}", {"id": "x"}, "ids of their own"),
]


async def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    place: tuple[Runtime, httpx.AsyncClient],
) -> None:
    _, client = place
    for kind, data, params, says in REFUSED:
        answer = await sent(client, "documents/upload", kind, data, **params)
        assert says in refused(answer, 400, "invalid_request_error")
    large = await sent(client, "documents/upload", "text/plain", b"x" * (17 << 20), id="large")
    assert "at most 16777216 are allowed" in refused(large, 413, "request_too_large")
    assert (await client.get(C)).json()["documents"] == 0


@pytest.mark.parametrize("says_its_length", [True, False], ids=["length", "chunked"])
async def test_a_document_of_a_hundred_megabytes_is_refused_and_is_never_in_memory(
    place: tuple[Runtime, httpx.AsyncClient],
    says_its_length: bool,  # noqa: FBT001 - pytest gives it by its name
) -> None:
    _, client = place
    piece, pieces = b"the red fox " * (1 << 16), 140
    this_process = psutil.Process()
    before, most = this_process.memory_info().rss, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(pieces):
            most = max(most, this_process.memory_info().rss)
            yield piece

    headers = {"content-type": "text/plain"}
    if says_its_length:
        headers["content-length"] = str(len(piece) * pieces)
    answer = await client.post(
        f"{C}/documents/upload", content=body(), headers=headers, params={"id": "large"}
    )
    assert "16777216" in refused(answer, 413, "request_too_large")
    assert most - before < 64 << 20
    refused(await client.get(f"{C}/documents/large"), 404, "document_not_found")
    (found,) = (await client.get("/v1/collections")).json()["collections"]
    assert (found["ready"], found["documents"]) == (True, 0)


def rows(many: int) -> list[dict[str, Any]]:
    return [
        {"id": n, "text": TEXTS[n % 3 + 1], "vector": [1.0, *[n / many] * (WIDTH - 1)], "n": n}
        for n in range(many)
    ]


async def test_a_stream_longer_than_a_body_may_be_is_written_whole(
    place: tuple[Runtime, httpx.AsyncClient],
) -> None:
    runtime, client = place
    padding = "x" * (32 << 10)
    most = 0

    async def lines() -> AsyncIterator[bytes]:
        nonlocal most
        for row in rows(700):
            most = max(most, runtime.services.collections.find("notes").changes.behind)
            yield json.dumps({**row, "padding": padding}).encode() + b"\n"

    answer = await sent(client, "points/import", JSONL, lines(), wait=True)
    assert answer.status_code == httpx.codes.OK, answer.text
    assert (answer.json()["points"], answer.json()["status"]) == (700, "applied")
    assert await count(client) == 700
    assert most <= 33, "it is read no faster than it is applied"
    point = (await client.get(f"{C}/points/5")).json()
    assert point["payload"] == {"n": 5, "text": TEXTS[3], "padding": padding}


def as_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


async def test_columns_become_points(place: tuple[Runtime, httpx.AsyncClient]) -> None:
    _, client = place
    for kind, written in (
        ("application/vnd.apache.arrow.stream", as_arrow),
        ("application/vnd.apache.parquet", as_parquet),
    ):
        table = pa.Table.from_pylist([{**row, "kind": kind} for row in rows(300)])
        answer = await sent(client, "points/import", kind, written(table), wait=True)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()["points"] == 300
        assert await count(client) == 300
        payload = (await client.get(f"{C}/points/299")).json()["payload"]
        assert payload == {"n": 299, "kind": kind, "text": TEXTS[3]}


async def test_an_import_that_is_refused_says_where_and_what_is_written(
    place: tuple[Runtime, httpx.AsyncClient],
) -> None:
    _, client = place
    good = "".join(json.dumps(row) + "\n" for row in rows(256))
    for bad, says in (
        ('{"id": 1}', "needs a text or a vector"),
        ('{"id": 1, "vector": [1, 2]}', "2 dimensions"),
        ("nonsense", "point 257 is no JSON"),
        ('{"id": -1, "text": "x"}', "an id must be"),
        ('{"id": 1, "vector": 7}', "point 257: vector"),
    ):
        answer = await sent(client, "points/import", JSONL, (good + bad).encode())
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert says in error["message"]
        assert error["message"].endswith("; 256 points before are written")
        assert error["written"] == 256
    for kind, data, says in (
        ("application/vnd.apache.parquet", b"nonsense", "the body is no application/vnd"),
        ("application/vnd.apache.arrow.stream", b"nonsense", "the body is no application/vnd"),
        ("text/csv", b"a,b", "'text/csv' cannot be read; known are application/jsonl"),
        (JSONL, b"", "there is no point in it"),
    ):
        answer = await sent(client, "points/import", kind, data)
        assert says in refused(answer, 400, "invalid_request_error")
