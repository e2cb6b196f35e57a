"""A pod that is killed while it takes documents in: the next one goes on, and doubles nothing."""

import contextlib
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.collection_pods import MODELS, PATIENCE, C, document, notes
from tests.support.processes import (
    POD,
    Process,
    environment,
    free_port,
    running_process,
    wait_until_answers,
)

SPLIT = {"chunking": {"splitter": "Text", "maxTokens": 64, "overlapTokens": 0}}
COUNT = 60


def text(number: int) -> str:
    paragraph = f"the red fox number {number} jumped over the water tank of the model. " * 4
    return "\n\n".join(f"{paragraph} part {part}" for part in range(3))


@contextlib.contextmanager
def running(folder: pathlib.Path, desired: str) -> Iterator[tuple[Process, httpx.Client]]:
    """Give a pod as its container would run it, on the folder that it had before."""
    (folder / "desired.json").write_text(desired)
    port, internal = free_port(), free_port()
    env = environment(
        folder,
        host="127.0.0.1",
        port=port,
        internal_host="127.0.0.1",
        internal_port=internal,
        desired_file=folder / "desired.json",
        drain_seconds=1,
        log_format="json",
    )
    with (
        running_process(POD, env, cwd=folder) as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False
        ) as client,
    ):
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        until(lambda: client.get(C).json()["ready"])
        yield process, client


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


@pytest.mark.timeout(600)
def test_a_pod_that_is_killed_amid_documents_goes_on_with_them_and_doubles_nothing(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    desired = document(files, MODELS, notes(**SPLIT)).sealed(1).model_dump_json(by_alias=True)
    documents = [{"id": f"doc-{n}", "text": text(n)} for n in range(COUNT)]
    told: dict[str, Any] = {}

    def done(client: httpx.Client) -> int:
        told.update(client.get(f"/v1/operations/{told['id']}").json())
        return int(told["done"])

    with running(tmp_path, desired) as (process, client):
        answer = client.post(f"{C}/documents", json={"documents": documents})
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        told.update(answer.json())
        until(lambda: done(client) >= 5)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        before = told["done"]
    with running(tmp_path, desired) as (_, client):
        after = done(client)
        assert before <= after < COUNT, "it was killed amid its work"
        until(lambda: done(client) == COUNT)
        until(lambda: client.get(f"/v1/operations/{told['id']}").json()["status"] == "completed")
        assert told["failed"] == 0
        points = client.post(f"{C}/points/scroll", json={"limit": 1000}).json()["points"]
        assert len(points) == told["chunks"]
        chunks: dict[str, list[int]] = {}
        for each in points:
            payload = each["payload"]
            chunks.setdefault(payload["document"], []).append(payload["chunk"])
        assert sorted(chunks) == sorted(each["id"] for each in documents)
        assert all(sorted(numbers) == list(range(len(numbers))) for numbers in chunks.values())
