"""Worker processes: how they are born, die and leave nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.workers import (
    child_pids,
    chunks_of,
    completion,
    eventually,
    loaded,
    open_files,
    text_of,
)
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Chunk, EngineSpec
from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.engines.worker.board import server_board
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.engines.worker.process import worker_environment

ORPHAN_MAKER = """
import asyncio, os
from ullage_runtime.engines.worker.board import server_board
from ullage_runtime.engines.worker.engine import WorkerEngine

async def main():
    engine = await WorkerEngine.start("LlamaCpp")
    print(engine.pid, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_killed_worker_fails_its_requests_and_says_how_it_ended(tmp_path: Path) -> None:
    engine = await loaded(write_model(tmp_path / "tiny.gguf"))
    stream = asyncio.create_task(chunks_of(engine, completion("Hello")))

    async def running() -> bool:
        return (await engine.stats()).requests_running == 1

    await eventually(running)
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineFailed, match="SIGKILL") as failed:
        await stream
    assert failed.value.retry_after
    assert "SIGKILL" in await engine.ended()
    with pytest.raises(EngineFailed):
        await engine.stats()
    with pytest.raises(EngineFailed):
        await chunks_of(engine, completion("Hello"))
    await engine.unload()


async def test_workers_leave_no_process_and_no_file_behind(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    engine = await loaded(path)
    await engine.unload()
    children, files = child_pids(), open_files()
    for kill in (False, True):
        engine = await loaded(path)
        if kill:
            os.kill(engine.pid, signal.SIGKILL)
            await engine.ended()
        await engine.unload()
        await engine.unload()

    async def clean() -> bool:
        return child_pids() <= children and open_files() <= files

    await eventually(clean, seconds=5)


async def test_a_worker_whose_server_is_killed_does_not_live_on() -> None:
    maker = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", ORPHAN_MAKER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    orphan = int(maker.stdout)

    async def gone() -> bool:
        return not psutil.pid_exists(orphan) or (
            psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
        )

    await eventually(gone, seconds=10)


async def test_the_kernel_would_take_a_worker_before_its_server(tmp_path: Path) -> None:
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        score = await asyncio.to_thread(Path(f"/proc/{engine.pid}/oom_score_adj").read_text)
        assert int(score) == 500
    finally:
        await engine.unload()


async def test_unloading_in_the_midst_of_a_generation_fails_it(tmp_path: Path) -> None:
    engine = await loaded(write_model(tmp_path / "tiny.gguf"))
    stream = asyncio.create_task(chunks_of(engine, completion("Hello")))

    async def running() -> bool:
        return (await engine.stats()).requests_running == 1

    await eventually(running)
    await engine.unload()
    with pytest.raises(EngineFailed, match="unloaded"):
        await stream


async def test_an_estimate_is_close_to_what_the_model_then_takes(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    engine = await WorkerEngine.start("LlamaCpp")
    spec = EngineSpec(path=str(path), context_length=4096)
    try:
        footprint = await engine.estimate(spec)
        loaded_model = await engine.load(spec)
        await text_of(engine, completion("Hello", max_tokens=20))
        actual = (await engine.stats()).resident_bytes
    finally:
        await engine.unload()
    assert loaded_model.context_length == 4096
    assert loaded_model.device.startswith("CPU (")
    assert footprint.weights == pytest.approx(path.stat().st_size, rel=0.05)
    assert footprint.kv_cache == 2 * 4096 * 64 * 2 * 2, "two layers, keys and values, in f16"
    assert 0.85 < actual / footprint.total < 1.1


async def test_a_worker_that_is_sent_what_it_cannot_read_ends_and_fails_its_requests() -> None:
    engine = await WorkerEngine.start("LlamaCpp")
    engine._process.writer.write(b"\x00\x00\x00\x01\xc1")  # a byte that msgpack never uses
    async with asyncio.timeout(20):
        how = await engine.ended()
    assert "status 4" in how
    assert "could not be taken" in how
    with pytest.raises(EngineFailed):
        await engine.stats()
    await engine.unload()


async def test_an_engine_that_is_told_nonsense_says_so_and_lives(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("This is no model at all, although it is called one.")
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        with pytest.raises(LoadError) as failed:
            await engine.load(EngineSpec(path=str(path)))
        assert failed.value.reason is Reason.INVALID_MODEL
        assert (await engine.stats()).requests_running == 0
    finally:
        await engine.unload()


def test_a_worker_gets_no_secrets_from_the_environment() -> None:
    given = worker_environment(
        {"PATH": "/bin", "HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "y", "OMP_NUM_THREADS": "2"}
    )
    assert given == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "2",
        "GOMP_SPINCOUNT": "5000",
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_how_threads_wait_is_as_the_environment_says_where_it_says() -> None:
    assert "GOMP_SPINCOUNT" not in worker_environment({"OMP_WAIT_POLICY": "passive"})
    assert worker_environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"


def test_a_worker_numbers_gpus_as_the_driver_does() -> None:
    assert worker_environment({})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    chosen = worker_environment({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    assert chosen["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_worker_that_is_told_its_gpu_sees_that_one_whatever_else_is_said() -> None:
    others = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "0,1"}
    told = worker_environment(others, "1")
    assert (told["CUDA_VISIBLE_DEVICES"], told["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert worker_environment(others)["CUDA_VISIBLE_DEVICES"] == "0,1"


async def test_a_worker_shows_that_it_computes_and_its_death_wipes_the_mark(
    tmp_path: Path,
) -> None:
    board = server_board()
    path = write_model(tmp_path / "tiny.gguf", Shape(context=8192))
    engines = [await loaded(path) for _ in range(2)]
    streams = [asyncio.create_task(chunks_of(e, completion("Hello"))) for e in engines]

    async def both() -> bool:
        return board.working == 2

    async def none() -> bool:
        return board.working == 0

    await eventually(both)
    os.kill(engines[0].pid, signal.SIGKILL)
    with pytest.raises(EngineFailed):
        await streams[0]
    streams[1].cancel()
    await eventually(none)
    for engine in engines:
        await engine.unload()


async def test_workers_that_compute_at_once_share_the_threads(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", Shape(context=8192))
    engines = [await loaded(path, threads=4) for _ in range(2)]
    idle = [threads_of(engine) for engine in engines]

    def start(engine: WorkerEngine) -> "asyncio.Task[list[Chunk]]":
        return asyncio.create_task(chunks_of(engine, completion("Hello")))

    def computing(*wanted: int) -> Callable[[], Awaitable[bool]]:
        async def met() -> bool:
            # The engine's own thread computes too; the others come and go with its steps.
            return [threads_of(e) - i + 1 for e, i in zip(engines, idle, strict=True)] == [*wanted]

        return met

    try:
        first = start(engines[0])
        await eventually(computing(4, 1))
        second = start(engines[1])
        await eventually(computing(2, 2))
        second.cancel()
        await eventually(computing(4, 2))  # who waits keeps the threads of its last step, asleep
        first.cancel()
    finally:
        for engine in engines:
            await engine.unload()


def threads_of(engine: WorkerEngine) -> int:
    """Return how many threads a worker has."""
    return psutil.Process(engine.pid).num_threads()
