"""A thousand hostile headers: the worker may die of them, the server never."""

import asyncio
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import psutil
import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.lora_files import write_adapter
from tests.support.mutants import Original, write_mutant
from tests.support.workers import child_pids, eventually, loaded, open_files
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Adapter, EngineSpec
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.llamacpp.header import MAX_STRINGS, read_header
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine

GUIDE = Path(__file__).parents[3] / "examples" / "models" / "guide-v1.gguf"
MUTANTS = 1000
WORKERS = 2
SECONDS = 30.0
"""What a single file may take; the engine's own limit is longer."""
GROWTH = 32 << 20
"""What the server's memory may grow by, all files together."""
WORKER_PEAK = 512 << 20
"""What a worker may ever take to look at a file of 5 MB."""
MESSAGE = 2048
"""What a resource's status has room for."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Original, Original]:
    tiny = write_model(tmp_path_factory.mktemp("whole") / "tiny.gguf", Shape(layers=1))
    return Original(tiny), Original(GUIDE)


def mutants(folder: Path, originals: tuple[Original, ...]) -> Iterator[tuple[int, Path]]:
    for seed in range(MUTANTS):
        # Each kind of mutation is used on both files.
        original = originals[seed // 10 % len(originals)]
        yield seed, write_mutant(folder / f"{seed}.gguf", original, seed)


def row_bytes(ggml_type: int, elements: int) -> int | None:
    """Return what ggml says, without its library in this process."""
    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(ggml_type)]
    except (KeyError, ValueError):
        return None
    return elements // block * size


def check(error: LoadError, path: Path) -> None:
    """Check that a refusal is final and has room in a resource's status."""
    assert error.reason is Reason.INVALID_MODEL, (path, error)
    assert error.final, (path, error)
    assert len(error.message) < MESSAGE, (path, error)


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


def peak(pid: int) -> int:
    """Return the most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_thousand_hostile_headers_are_read_at_once_and_in_little_memory(
    tmp_path: Path, originals: tuple[Original, Original]
) -> None:
    before, outcomes, slowest = memory(), Counter[str](), 0.0
    for _, path in mutants(tmp_path, originals):
        began = time.process_time()
        try:
            read_header(str(path), row_bytes)
        except LoadError as error:
            check(error, path)
            outcomes["refused"] += 1
        else:
            outcomes["taken"] += 1
        slowest = max(slowest, time.process_time() - began)
        path.unlink()
    assert outcomes["refused"] > MUTANTS / 2, outcomes
    assert slowest < 1
    assert memory() - before < GROWTH


def begun(entries: int, *content: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 1, entries) + b"".join(content)


def entry(key: bytes, kind: int) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind)


STRINGS = struct.pack("<IQ", 8, MAX_STRINGS)
"""The head of an array of as many strings as there may be."""
MILLION = struct.pack("<IQ", 8, 1_000_000) + struct.pack("<Q", 0) * 1_000_000

LARGE = {
    "as many strings as may be": (begun(1, entry(b"a", 9), STRINGS), None),
    "one more": (begun(1, entry(b"a", 9), struct.pack("<IQ", 8, MAX_STRINGS + 1)), "2097152"),
    "more in all": (
        begun(3, *(entry(b"%d" % n, 9) + MILLION for n in range(3))),
        "arrays of more than 2097152 strings",
    ),
    "arrays of arrays": (
        begun(1, entry(b"a", 9), struct.pack("<IQ", 9, 1 << 40)),
        "elements of type 9",
    ),
    "one string": (begun(1, entry(b"general.name", 8), struct.pack("<Q", 900 << 20)), None),
}
"""What a file of 1 GiB of holes begins with, and why it is refused, if it is."""


@pytest.mark.parametrize("name", LARGE)
def test_a_header_as_large_as_its_file_costs_neither_time_nor_memory(
    tmp_path: Path, name: str
) -> None:
    content, words = LARGE[name]
    path = tmp_path / "large.gguf"
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    before, began = memory(), time.process_time()
    if words is None:
        assert read_header(str(path), row_bytes).tensors == 1
    else:
        with pytest.raises(LoadError, match=words):
            read_header(str(path), row_bytes)
    assert time.process_time() - began < 10
    assert memory() - before < GROWTH


class Readers:
    """Workers that read one file after the other, each replaced when it dies of one."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    async def read(self, files: "asyncio.Queue[tuple[int, Path]]") -> None:
        engine: WorkerEngine | None = None
        try:
            while not files.empty():
                seed, path = files.get_nowait()
                engine = engine or await WorkerEngine.start("LlamaCpp")
                outcome = await self._outcome(engine, path)
                self.outcomes[outcome] += 1
                if outcome == "died":
                    await engine.unload()
                    engine = None
                else:
                    assert peak(engine.pid) < WORKER_PEAK, seed
                path.unlink()
        finally:
            if engine is not None:
                await engine.unload()

    @staticmethod
    async def _outcome(engine: WorkerEngine, path: Path) -> str:
        try:
            async with asyncio.timeout(SECONDS):
                engine_of(str(path))
                await engine.estimate(EngineSpec(path=str(path)))
        except LoadError as error:
            check(error, path)
            return "died" if "ended its reader" in error.message else "refused"
        except TimeoutError:
            pytest.fail(f"{path.name} took longer than {SECONDS} s")
        return "taken"


async def test_a_thousand_hostile_headers_end_no_more_than_their_workers(
    tmp_path: Path, originals: tuple[Original, Original]
) -> None:
    files: asyncio.Queue[tuple[int, Path]] = asyncio.Queue()
    for mutant in mutants(tmp_path, originals):
        files.put_nowait(mutant)
    warm = await WorkerEngine.start("LlamaCpp")
    await warm.unload()
    children, handles, before = child_pids(), open_files(), memory()
    readers = Readers()
    await asyncio.gather(*(readers.read(files) for _ in range(WORKERS)))
    outcomes = readers.outcomes
    assert outcomes.total() == MUTANTS
    assert outcomes["refused"] > MUTANTS / 2, outcomes
    assert outcomes["died"] < MUTANTS / 20, outcomes
    assert memory() - before < GROWTH

    async def clean() -> bool:
        return child_pids() <= children and open_files() <= handles

    await eventually(clean)


async def test_what_a_file_says_of_itself_is_quoted_in_part_only(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "boasts.gguf"), "x" * (1 << 20))
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LoadError, match="unknown model architecture: 'xxx") as failed:
        await loaded(tmp_path / "boasts.gguf")
    assert failed.value.final
    assert len(failed.value.message) < MESSAGE


async def test_hostile_adapters_end_no_more_than_their_workers(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.gguf", Shape(layers=1))
    original = Original(write_adapter(tmp_path / "tone.gguf", model))
    outcomes: Counter[str] = Counter()
    engine: WorkerEngine | None = None
    for seed in range(40):
        engine = engine or await WorkerEngine.start("LlamaCpp")
        path = write_mutant(tmp_path / f"{seed}.gguf", original, seed)
        outcome = await loading(
            engine, EngineSpec(str(model), adapters=(Adapter("tone", str(path)),))
        )
        outcomes[outcome] += 1
        if outcome != "named":
            await engine.unload()
            engine = None
    if engine is not None:
        await engine.unload()
    assert outcomes["named"] > 20, outcomes
    assert not outcomes["not named"], outcomes


async def loading(engine: WorkerEngine, spec: EngineSpec) -> str:
    """Return what comes of loading a model with an adapter."""
    try:
        async with asyncio.timeout(SECONDS):
            await engine.load(spec)
    except LoadError as error:
        if error.reason is Reason.LOAD_FAILED:
            return "died"
        check(error, Path(spec.adapters[0].path))
        return "named" if "adapter 'tone'" in error.message else "not named"
    return "taken"
