"""A pod that is told to end while clients listen: the whole process, as the kubelet ends it."""

import asyncio
import json
import os
import pathlib
import signal
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.processes import (
    PATIENCE,
    POD,
    environment,
    free_port,
    running_process,
    wait_until_answers,
)
from tests.support.runtimes import eventually

STREAMS = 4
TOKENS = 600
"""Of an answer: some seconds' work, with the others'."""

MemoryFiles = set[tuple[int, int]]


@dataclass
class Stream:
    """One client's stream: its events, and how many of them came before the signal."""

    events: list[dict[str, Any]] = field(default_factory=list)
    is_done: bool = False
    before: int = 0

    async def read(self, client: httpx.AsyncClient, number: int) -> None:
        body = {
            "model": "tiny",
            "prompt": f"{number} begins",
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": True,
        }
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    self.is_done = True
                elif line.startswith("data: "):
                    self.events.append(json.loads(line.removeprefix("data: ")))


def memory_files(pid: int) -> MemoryFiles:
    """Return the files in memory that a process has made, by device and number."""
    found: MemoryFiles = set()
    for each in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(each).startswith("/memfd:ullage"):  # noqa: PTH115 - it is no path
            status = each.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def still_held(files: MemoryFiles) -> bool:
    """Whether any process of this machine has one of these files open."""
    for pid in psutil.pids():
        try:
            if files & memory_files(pid):
                return True
        except OSError:  # it has ended meanwhile
            continue
    return False


@pytest.mark.parametrize("drain_seconds", [60, 0.3])
async def test_streams_come_to_their_end_and_nothing_is_left(
    tmp_path: pathlib.Path, drain_seconds: float
) -> None:
    write_model(tmp_path / "tiny.gguf", Shape(context=4096, width=256, layers=4))
    document = {
        "namespace": "default",
        "pool": "default",
        "sequence": 1,
        "hash": "x",
        "settings": {"fileRoots": [str(tmp_path)]},
        "models": [
            {
                "name": "tiny",
                "task": "Chat",
                "ordinals": [0],
                "target": {"uri": "file:tiny.gguf", "engine": {"threads": 1}},
            }
        ],
    }
    (tmp_path / "desired.json").write_text(json.dumps(document))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = environment(
        tmp_path,
        host="127.0.0.1",
        port=port,
        internal_host="127.0.0.1",
        internal_port=free_port(),
        desired_file=tmp_path / "desired.json",
        drain_seconds=drain_seconds,
    )
    with running_process(POD, env, cwd=tmp_path) as process:
        wait_until_answers(f"{url}/readyz", process)
        streams = [Stream() for _ in range(STREAMS)]
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
            reading = [
                asyncio.create_task(stream.read(client, number))
                for number, stream in enumerate(streams)
            ]
            await eventually(lambda: all(stream.events for stream in streams), PATIENCE)
            own = psutil.Process(process.popen.pid)
            children = own.children(recursive=True)
            files = memory_files(own.pid)
            assert children
            assert still_held(files), "the workers' board at least"
            for stream in streams:
                stream.before = len(stream.events)
            process.popen.send_signal(signal.SIGTERM)
            await asyncio.gather(*reading)
        status = await asyncio.to_thread(process.popen.wait, PATIENCE)
        assert status == 0, "".join(process.errors)
        assert not [child for child in children if child.is_running()]
        assert not still_held(files)
        assert "Traceback" not in "".join(process.errors)
    assert all(len(stream.events) > stream.before for stream in streams)
    if drain_seconds > 1:
        assert all(stream.is_done for stream in streams)
        assert all(s.events[-1]["choices"][0]["finish_reason"] == "length" for s in streams)
    else:
        assert not any(stream.is_done for stream in streams)
        assert [s.events[-1]["error"]["code"] for s in streams] == ["shutting_down"] * STREAMS
