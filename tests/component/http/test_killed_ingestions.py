"""The whole runtime is killed while it takes documents in: the next one goes on, and doubles none.

A seed says when; `make soak` plays twenty.
"""

import contextlib
import os
import pathlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.support.collection_pods import MODELS, SPLIT, document, long_text, notes
from tests.support.processes import (
    POD,
    environment,
    free_port,
    running_process,
    wait_until_answers,
)
from ullage_runtime.retrieval.ingest.documents import DocumentsFile, Operation

SEEDS = range(1, 1 + int(os.environ.get("ULLAGE_SOAK_SEEDS", "1")))
DEATHS = 2
DOCUMENTS = 120
PATIENCE = 120.0


@contextlib.contextmanager
def runtime(folder: pathlib.Path) -> Iterator[tuple[httpx.Client, Callable[[], None]]]:
    """A pod's process on a folder, and what kills it: everything it has started dies with it."""
    port = free_port()
    env = environment(
        folder, desired_file=folder / "desired.json", host="127.0.0.1", port=port, log_level="error"
    )
    url = f"http://127.0.0.1:{port}"
    with running_process(POD, env, cwd=folder) as process:

        def kill() -> None:
            children = psutil.Process(process.popen.pid).children(recursive=True)
            assert children, "an engine and the shards' owner"
            process.end(signal.SIGKILL)
            _, alive = psutil.wait_procs(children, PATIENCE)
            assert not alive

        wait_until_answers(f"{url}/readyz", process)
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            until(lambda: all(c["ready"] for c in collections(client)))
            yield client, kill


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"did not come about within {PATIENCE} s"
        time.sleep(0.005)


def collections(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.get("/v1/collections").json()["collections"])


def sent(client: httpx.Client, name: str, documents: list[dict[str, Any]]) -> str:
    body = {"documents": documents}
    answer = client.post(f"/v1/collections/{name}/documents", json=body)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return f"/v1/operations/{answer.json()['id']}"


def completed(client: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_completed() -> bool:
        found.update(client.get(path).json())
        return bool(found["status"] == "completed")

    until(is_completed)
    return found


def come_to(client: httpx.Client, path: str, enough: int) -> None:
    """Wait until so many documents are done."""
    until(lambda: bool(client.get(path).json()["done"] >= enough))


def points(client: httpx.Client, name: str) -> dict[str, dict[str, Any]]:
    """Return the payloads of all points by their ids."""
    found: dict[str, dict[str, Any]] = {}
    after = None
    while True:
        body = {"limit": 1000, "after": after}
        page = client.post(f"/v1/collections/{name}/points/scroll", json=body).json()
        found |= {each["id"]: each["payload"] for each in page["points"]}
        after = page["next"]
        if after is None:
            return found


def on_disk(folder: pathlib.Path, path: str) -> Operation:
    """Return an operation as a killed runtime has left it."""
    (file,) = folder.glob("state/**/notes/documents.sqlite")
    documents = DocumentsFile(file, time.time)
    found = documents.operation(path.rpartition("/")[2])
    documents.close()
    assert found is not None
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_document_is_there_once_however_often_the_runtime_is_killed(
    tmp_path: pathlib.Path, files: pathlib.Path, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - not for secrets
    unharmed = notes(**SPLIT).model_copy(update={"name": "unharmed"})
    desired = document(files, MODELS, notes(**SPLIT), unharmed).sealed(1)
    (tmp_path / "desired.json").write_text(desired.model_dump_json(by_alias=True))
    documents = [
        {"id": f"doc/{n}", "text": long_text(n), "metadata": {"n": n}} for n in range(DOCUMENTS)
    ]
    path, done = "", 0
    for _ in range(DEATHS):
        with runtime(tmp_path) as (client, kill):
            path = path or sent(client, "notes", documents)
            enough = done + dice.randrange(1, DOCUMENTS // 4)
            come_to(client, path, enough)
            time.sleep(dice.uniform(0, 0.05))
            kill()
        left = on_disk(tmp_path, path)
        assert left.pending > 0, "it was killed too late to prove anything"
        assert left.done >= enough, "what was told as done is done"
        done = left.done
    with runtime(tmp_path) as (client, _):
        # Nobody asks for it: it goes on by itself.
        operation = completed(client, path)
        assert (operation["done"], operation["failed"]) == (DOCUMENTS, 0)
        found = points(client, "notes")
        chunks = Counter(each["document"] for each in found.values())
        assert len({(e["document"], e["chunk"]) for e in found.values()}) == len(found)
        assert operation["chunks"] == len(found) > DOCUMENTS
        for each in documents:
            kept = client.get(f"/v1/collections/notes/documents/{each['id']}").json()
            assert (kept["status"], kept["chunks"]) == ("Done", chunks[each["id"]])
        assert [c["points"] for c in collections(client) if c["name"] == "notes"] == [len(found)]
        # The same where nothing was killed.
        completed(client, sent(client, "unharmed", documents))
        assert found == points(client, "unharmed")
