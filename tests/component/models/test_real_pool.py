"""A pool of real workers: killed, replaced, and with bad models among good ones."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fake_models import answer, until, wanted
from tests.support.gguf_models import Shape, write_model
from tests.support.model_files import LocalFiles
from tests.support.mutants import MUTATIONS, Original, write_mutant
from tests.support.workers import (
    SLACK,
    chat,
    child_pids,
    completion,
    eventually,
    open_files,
    workers,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_status import Residency
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, PoolDesired
from ullage_runtime.core.errors import EngineFailed, InsufficientMemory, ModelUnavailable
from ullage_runtime.engines.procfs import proportional_set_size
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.board import server_board
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.pool import ModelPool

MIB = 1 << 20
SHOWN = {Reason.SERVING, Reason.IDLE, Reason.WARM}
"""Reasons of a model that has shown that it serves."""


class SmallHost(HostMemory):
    """The real memory, of which there is little."""

    def total(self) -> int:
        return 300 * MIB


@pytest.fixture
async def pool() -> AsyncIterator[ModelPool]:
    async with ModelPool(
        source=LocalFiles(),
        pod_name="ullage-default-0",
        ordinal=0,
        version="0",
        devices=[SmallHost()],
    ) as pool:
        yield pool


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf")


def document(sequence: int, *models: DesiredModel) -> PoolDesired:
    return PoolDesired(namespace="team", pool="default", models=models).sealed(sequence)


def broken_files(folder: Path, whole: Path) -> tuple[Path, Path]:
    cut, page = folder / "cut.gguf", folder / "page.gguf"
    cut.write_bytes(whole.read_bytes()[:-999])
    page.write_text("<html>not found</html>")
    return cut, page


async def test_a_worker_killed_in_the_midst_of_an_answer_is_replaced(
    pool: ModelPool, tiny: Path
) -> None:
    await pool.apply(document(1, wanted(uri=str(tiny))))
    before = await until(pool, lambda m: m.reason is Reason.SERVING)
    assert len(workers()) == 1
    stream = asyncio.create_task(answer(pool, request=completion("Hello")))

    async def running() -> bool:
        report = pool.report().model("chat")
        return report is not None and report.requests_running == 1

    await eventually(running)
    os.kill(workers()[0].pid, signal.SIGKILL)
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await stream
    assert len(await answer(pool, request=chat("hi"))) > 1
    after = await until(pool, lambda m: m.reason is Reason.SERVING)
    assert after.restarts == 1
    assert len(workers()) == 1
    assert before.active is not None
    assert before.active.resident_bytes is not None
    ledger = pool.report().devices[0].ledger_bytes
    assert ledger == pytest.approx(before.active.resident_bytes, abs=SLACK)


async def test_bad_models_among_good_ones_leave_the_good_ones_serving(
    pool: ModelPool, tiny: Path, tmp_path: Path
) -> None:
    cut, page = broken_files(tmp_path, tiny)
    huge = EngineSettings(context_length=4_000_000)
    await pool.apply(
        document(
            1,
            wanted("good", str(tiny)),
            wanted("cut", str(cut)),
            wanted("page", str(page)),
            wanted("huge", str(tiny), engine=huge),
        )
    )
    for name in ("cut", "page"):
        model = await until(pool, lambda m: m.final, name)
        assert model.reason is Reason.INVALID_MODEL
        assert model.residency is Residency.DISK
        with pytest.raises(ModelUnavailable, match=name):
            await answer(pool, name)
    too_large = await until(pool, lambda m: m.final, "huge")
    assert too_large.reason is Reason.WILL_NEVER_FIT
    assert "the pool's budget is 270.0 MiB of 300.0 MiB" in too_large.message
    assert "KV cache 1.9 GiB" in too_large.message
    with pytest.raises(InsufficientMemory):
        await answer(pool, "huge")
    assert len(await answer(pool, "good", request=chat("hi"))) > 1
    assert len(workers()) == 1


async def test_a_change_of_revision_under_traffic_fails_no_request(
    pool: ModelPool, tiny: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.gguf", Shape(seed=2))
    await pool.apply(document(1, wanted(uri=str(tiny))))
    first = await until(pool, lambda m: m.reason is Reason.SERVING)
    stop, revisions = asyncio.Event(), []

    async def client() -> None:
        while not stop.is_set():
            async with pool.lease(pool.find("chat")) as lease:
                chunks = [c async for c in lease.generate(chat("hi", max_tokens=30))]
            assert chunks[-1].finish is not None
            revisions.append(lease.revision)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    await pool.apply(document(2, wanted(uri=str(other), generation=2)))
    second = await until(pool, lambda m: m.active is not None and m.active.uri == str(other))
    assert first.active is not None
    assert second.active is not None
    newer = second.active.revision

    async def answered_by_the_newer() -> bool:
        return newer in revisions

    await eventually(answered_by_the_newer)
    stop.set()
    await asyncio.gather(*clients)
    switch = revisions.index(second.active.revision or "")
    assert 0 < switch < len(revisions)
    assert set(revisions) == {first.active.revision, second.active.revision}

    async def one_left() -> bool:
        return len(workers()) == 1

    await eventually(one_left)


async def test_a_pool_leaves_no_process_and_no_file_behind(tiny: Path) -> None:
    server_board()  # stays open as long as this process lives
    children, files = child_pids(), open_files()
    async with ModelPool(
        source=LocalFiles(), pod_name="p", ordinal=0, version="0", devices=[HostMemory()]
    ) as pool:
        await pool.apply(document(1, wanted("a", str(tiny)), wanted("b", str(tiny))))
        await until(pool, lambda m: m.reason is Reason.SERVING, "a")
    assert pool.report().devices[0].ledger_bytes == 0

    async def clean() -> bool:
        return child_pids() <= children and open_files() <= files

    await eventually(clean, seconds=5)


async def test_the_next_load_takes_the_spare_process_and_the_ledger_has_it_throughout(
    tiny: Path,
) -> None:
    server_board()  # stays open as long as this process lives
    children, files = child_pids(), open_files()
    async with ModelPool(
        source=LocalFiles(),
        pod_name="p",
        ordinal=0,
        version="0",
        devices=[HostMemory()],
        kind_of=engine_of,
    ) as pool:
        await pool.apply(document(1, wanted("a", str(tiny))))
        await until(pool, lambda m: m.reason is Reason.SERVING, "a")
        (first,) = workers()

        async def two_measured() -> bool:
            found = workers()
            taken = sum(proportional_set_size(worker.pid) for worker in found)
            ledger = pool.report().devices[0].ledger_bytes
            return len(found) == 2 and ledger == pytest.approx(taken, abs=SLACK)

        await eventually(two_measured, seconds=60)
        (spare,) = (worker for worker in workers() if worker != first)
        await pool.apply(document(2, wanted("a", str(tiny)), wanted("b", str(tiny))))
        await until(pool, lambda m: m.reason is Reason.SERVING, "b")
        assert tiny.name in " ".join(m.path for m in spare.memory_maps())
        assert len(await answer(pool, "b", chat("hi"))) > 1

        async def one_more() -> bool:
            return len(workers()) == 3

        await eventually(one_more, seconds=60)
        (spare,) = (worker for worker in workers() if worker not in (first, spare))
        os.kill(spare.pid, signal.SIGKILL)
        await pool.apply(document(3, *(wanted(name, str(tiny)) for name in "abc")))
        await until(pool, lambda m: m.reason is Reason.SERVING, "c")

    async def clean() -> bool:
        return child_pids() <= children and open_files() <= files

    await eventually(clean, seconds=5)


async def test_hostile_headers_among_good_models_take_nobody_down(
    pool: ModelPool, tiny: Path, tmp_path: Path
) -> None:
    original = Original(tiny)
    mutants = {
        f"mutant-{seed}": write_mutant(tmp_path / f"{seed}.gguf", original, seed)
        for seed in range(len(MUTATIONS))
    }
    good = wanted("good", str(tiny))
    await pool.apply(document(1, good))
    await until(pool, lambda m: m.reason is Reason.SERVING, "good")
    await pool.apply(document(2, good, *(wanted(n, str(p), uid=n) for n, p in mutants.items())))
    for name in mutants:
        model = await until(pool, lambda m: m.final or m.reason is Reason.SERVING, name)
        assert model.reason in {Reason.INVALID_MODEL, Reason.SERVING}, model
    assert len(await answer(pool, "good", request=chat("hi"))) > 1
    report = pool.report().model("good")
    assert report is not None
    assert report.restarts == 0
    serving = [m for m in pool.report().models if m.reason is Reason.SERVING]
    assert len(workers()) == len(serving)


GUIDE = Path(__file__).parents[3] / "examples" / "models" / "guide-v1.gguf"


async def test_three_real_models_share_memory_for_two_and_every_request_is_answered(
    tmp_path: Path,
) -> None:
    engine = EngineSettings(context_length=1024, parallel=2, threads=1)
    async with ModelPool(
        source=LocalFiles(), pod_name="p", ordinal=0, version="0", devices=[HostMemory()]
    ) as pool:
        await pool.apply(document(1, wanted("a", str(GUIDE), engine=engine)))
        served = await until(pool, lambda m: m.reason is Reason.SERVING, "a")
        assert served.active is not None
        each = max(served.active.estimated_bytes or 0, served.active.resident_bytes or 0)

    class ForTwo(HostMemory):
        def total(self) -> int:
            return 21 * each // 10

    names = ("a", "b", "c")
    settings = RuntimeSettings(memory_max_percent=100, memory_reserve_percent=0)
    copies = {name: shutil.copy(GUIDE, tmp_path / f"{name}.gguf") for name in names}
    models = [wanted(name, str(copies[name]), engine=engine, uid=name) for name in names]
    async with ModelPool(
        source=LocalFiles(), pod_name="p", ordinal=0, version="0", devices=[ForTwo()]
    ) as pool:
        await pool.apply(
            PoolDesired(
                namespace="team", pool="default", models=tuple(models), settings=settings
            ).sealed(1)
        )
        for name in names:
            await until(pool, lambda m: m.reason in SHOWN, name)
        fullest = 0

        async def client(name: str) -> list[int]:
            nonlocal fullest
            lengths = []
            for _ in range(4):
                lengths.append(len(await answer(pool, name, chat("What is a pool?"))))
                fullest = max(fullest, pool.report().devices[0].ledger_bytes)
            return lengths

        answered = await asyncio.gather(*(client(name) for name in (*names, *names)))
        assert all(length > 1 for lengths in answered for length in lengths)
        assert fullest <= 21 * each // 10
        left = {d.model for d in pool.decisions() if not d.is_refusal}
        assert left, "somebody had to make room"
        assert not [d for d in pool.decisions() if d.is_refusal]
