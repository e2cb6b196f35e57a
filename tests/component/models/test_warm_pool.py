"""The warm tier with real workers: what is kept is really there, and nothing of it is left over."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.support.fake_models import answer, until, wanted
from tests.support.gguf_models import Shape, write_model
from tests.support.model_files import LocalFiles
from tests.support.workers import (
    SLACK,
    child_pids,
    completion,
    eventually,
    open_files,
    workers,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, PoolDesired
from ullage_runtime.engines.procfs import proportional_set_size
from ullage_runtime.engines.worker.board import server_board
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.pool import ModelPool

MIB = 1 << 20
PROMPT = "You are a patient assistant. " * 13
NAME = "memfd:ullage-warm"

VICTIM = """
import asyncio, sys
from tests.component.models.test_warm_pool import document, model, new_pool, warm
from tests.support.fake_models import answer
from ullage_api.conditions import Reason
from tests.support.fake_models import until

async def main():
    async with new_pool() as pool:
        await pool.apply(document(1, model(sys.argv[1], "a"), model(sys.argv[1], "b")))
        await warm(pool, "a")
        await warm(pool, "b")
        await answer(pool, "b")
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def model(path: str, name: str = "a", context: int = 2048, generation: int = 1) -> DesiredModel:
    return wanted(
        name,
        path,
        uid=name,
        generation=generation,
        engine=EngineSettings(context_length=context),
        residency=ResidencySettings(idle_seconds=1),
    )


def document(sequence: int, *models: DesiredModel) -> PoolDesired:
    return PoolDesired(namespace="team", pool="default", models=models).sealed(sequence)


def new_pool() -> ModelPool:
    return ModelPool(
        source=LocalFiles(), pod_name="p", ordinal=0, version="0", devices=[HostMemory()]
    )


async def warm(pool: ModelPool, name: str = "a") -> ReportedModel:
    return await until(
        pool, lambda m: m.residency is Residency.WARM and m.reason is Reason.WARM, name
    )


@pytest.fixture
async def pool() -> AsyncIterator[ModelPool]:
    server_board()  # stays open as long as this process lives
    children, files = child_pids(), open_files()
    async with new_pool() as pool:
        yield pool
    assert pool.report().devices[0].ledger_bytes == 0

    async def clean() -> bool:
        return child_pids() <= children and open_files() <= files

    await eventually(clean, seconds=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few MiB."""
    shape = Shape(width=256, layers=2, feed_forward=1024, context=2048)
    return write_model(tmp_path_factory.mktemp("models") / "model.gguf", shape)


def mapped_by_workers() -> bool:
    return any(NAME in mapped.path for worker in workers() for mapped in worker.memory_maps())


async def test_a_model_comes_back_from_memory_with_its_prefixes(
    pool: ModelPool, file: Path
) -> None:
    await pool.apply(document(1, model(str(file))))
    await until(pool, lambda m: m.reason is Reason.SERVING, "a")
    cold = await answer(pool, "a", completion(PROMPT, max_tokens=8))
    left = await warm(pool)
    (device,) = pool.report().devices
    assert left.host_bytes > await asyncio.to_thread(os.path.getsize, file)
    assert device.ledger_bytes == device.warm_bytes == left.host_bytes
    back = await answer(pool, "a", completion(PROMPT, max_tokens=8))
    assert [c.text for c in back] == [c.text for c in cold]
    assert cold[-1].usage is not None
    assert back[-1].usage is not None
    assert cold[-1].usage.cached_tokens == 0
    assert back[-1].usage.cached_tokens == back[-1].usage.prompt_tokens - 1
    assert mapped_by_workers()
    (worker,) = workers()
    taken = proportional_set_size(worker.pid)
    (device,) = pool.report().devices
    assert device.ledger_bytes == pytest.approx(taken, abs=SLACK)
    assert device.warm_bytes == 0


async def test_another_revision_leaves_no_bytes_of_what_was_warm(
    pool: ModelPool, file: Path
) -> None:
    files = open_files()
    await pool.apply(document(1, model(str(file))))
    first = await warm(pool)
    for generation in (2, 3):
        context = 512 * generation
        await pool.apply(
            document(generation, model(str(file), context=context, generation=generation))
        )
        served = await until(pool, lambda m: m.reason is Reason.SERVING, "a")
        assert served.active is not None
        assert served.active.promote_seconds is None
        again = await warm(pool)
        assert again.host_bytes == first.host_bytes
        assert pool.report().devices[0].ledger_bytes == again.host_bytes
    await pool.apply(document(4))

    async def gone() -> bool:
        return pool.report().devices[0].ledger_bytes == 0 and open_files() == files

    await eventually(gone, seconds=5)


async def test_a_killed_worker_takes_the_copy_that_it_mapped_along(
    pool: ModelPool, file: Path
) -> None:
    await pool.apply(document(1, model(str(file))))
    await warm(pool)
    stream = asyncio.create_task(answer(pool, "a", completion(PROMPT, max_tokens=500)))

    async def runs() -> bool:
        return mapped_by_workers()

    await eventually(runs)
    (worker,) = workers()
    worker.kill()
    await asyncio.gather(stream, return_exceptions=True)
    assert len(await answer(pool, "a", completion("Hello", max_tokens=4))) > 0
    assert not mapped_by_workers()


def holds(pid: int) -> bool:
    """Whether a process has a copy open or mapped."""
    try:
        process = psutil.Process(pid)
        mapped = any(NAME in mapped.path for mapped in process.memory_maps())
        folder = f"/proc/{pid}/fd"
        return mapped or any(
            NAME in os.readlink(f"{folder}/{name}")  # noqa: PTH115 - no path to be followed
            for name in os.listdir(folder)  # noqa: PTH208
        )
    except (psutil.Error, OSError):  # it has ended
        return False


def test_a_killed_server_leaves_no_copy_behind(file: Path) -> None:
    command = [sys.executable, "-c", VICTIM, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        try:
            assert victim.stdout is not None
            assert any(line.strip() == "ready" for line in victim.stdout)
            family = [victim.pid, *(c.pid for c in psutil.Process(victim.pid).children())]
            assert sum(map(holds, family)) == 2, "one copy is held, and a worker maps the other"
        finally:
            victim.kill()
    ended = threading.Event()
    for _ in range(100):
        if not any(map(holds, family)):
            return
        ended.wait(0.05)
    raise AssertionError("somebody holds a copy although the server is gone")
