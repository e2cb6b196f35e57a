"""What a real llama.cpp has computed of frequent prompts outlives its process."""

import threading
from pathlib import Path

import pytest

from tests.support.gguf_models import Shape, write_model
from tests.support.scoring import check_alone, ids_of, written
from tests.support.workers import chunks_of, completion, loaded, open_files
from ullage_runtime.core.domain import CacheType, GenerateRequest
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.models.memory_file import MemoryFile, lies_in_memory

MIB = 1 << 20
BEGINNING = "You are a patient assistant. " * 13


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf", Shape(context=4096, width=128))


def content(path: str | Path) -> bytes:
    return Path(path).read_bytes()


async def cached(engine: WorkerEngine, request: GenerateRequest) -> int:
    last = (await chunks_of(engine, request))[-1]
    assert last.usage is not None
    return last.usage.cached_tokens


def of(tenant: str, prompt: str) -> GenerateRequest:
    request = completion(prompt, max_tokens=4)
    return GenerateRequest("r", prompt=prompt, sampling=request.sampling, tenant=tenant)


@pytest.mark.parametrize("cache", [CacheType.F16, CacheType.Q8_0])
async def test_another_process_begins_where_the_one_before_ended(
    model: Path, cache: CacheType
) -> None:
    file = MemoryFile("test")
    try:
        first = await loaded(model, 4096, kv_cache_type=cache)
        try:
            await chunks_of(first, of("a", BEGINNING + "one"))
            written_bytes = await first.save_prefixes(file.path, 16 * MIB)
        finally:
            await first.unload()
        assert len(content(file.path)) == written_bytes > 0
        second = await loaded(model, 4096, kv_cache_type=cache, prefixes=file.path)
        try:
            stats = await second.stats()
            assert stats.kv_cells_used >= len(ids_of(BEGINNING))
            assert await cached(second, of("b", BEGINNING + "two")) == 0, "another tenant's"
            assert await cached(second, of("a", BEGINNING + "two")) == len(ids_of(BEGINNING))
            answer = written(
                await chunks_of(second, completion(BEGINNING + "two", max_tokens=20, logprobs=0))
            )
            if cache is CacheType.F16:
                await check_alone(second, ids_of(BEGINNING + "two"), answer)
        finally:
            await second.unload()
    finally:
        file.close()


async def test_only_what_fits_is_saved_and_what_was_used_last_comes_first(model: Path) -> None:
    file = MemoryFile("test")
    try:
        engine = await loaded(model, 4096)
        try:
            assert await engine.save_prefixes(file.path, MIB) == 0, "nothing was asked yet"
            for name in ("old", "new"):
                await chunks_of(engine, of(name, BEGINNING))
            both = await engine.save_prefixes(file.path, 4 * MIB)
            one = await engine.save_prefixes(file.path, both - 1)
            assert both // 3 < one <= both - 1
            assert await engine.save_prefixes(file.path, 100) == 0
            assert await engine.save_prefixes(file.path, both - 1) == one
        finally:
            await engine.unload()
        engine = await loaded(model, 4096, prefixes=file.path)
        try:
            assert await cached(engine, of("old", BEGINNING + "?")) == 0
            assert await cached(engine, of("new", BEGINNING + "?")) > 0
        finally:
            await engine.unload()
    finally:
        file.close()


@pytest.mark.parametrize("saved", [b"", b"\xc1 no message", b"\x93\xc0\x01\x02", b"\x01"])
async def test_what_cannot_be_restored_is_computed_anew(
    model: Path, tmp_path: Path, saved: bytes
) -> None:
    broken = tmp_path / "prefixes"
    broken.write_bytes(saved)
    for path in (broken, tmp_path / "missing"):
        engine = await loaded(model, 512, prefixes=str(path))
        try:
            assert await cached(engine, of("a", "Hello")) == 0
        finally:
            await engine.unload()


async def test_a_model_is_loaded_from_a_copy_in_memory_that_ends_with_it(model: Path) -> None:
    files = open_files()
    copy = MemoryFile("test")
    assert copy.copy_from(str(model), threading.Event())
    assert content(copy.path) == content(model)
    engine = await loaded(Path(copy.path))
    try:
        copy.close()
        copy.close()
        with pytest.raises(FileNotFoundError):
            content(copy.path)
        assert not copy.copy_from(str(model), threading.Event())
        text = [c.text for c in await chunks_of(engine, completion("Hello", max_tokens=4))]
        assert b"memfd:test" in content(f"/proc/{engine.pid}/maps")
        assert text
    finally:
        await engine.unload()
    assert open_files() == files


def test_a_copy_stops_when_it_is_told_to(model: Path) -> None:
    stop = threading.Event()
    stop.set()
    copy = MemoryFile("test")
    try:
        assert not copy.copy_from(str(model), stop)
        assert Path(copy.path).stat().st_size == 0
    finally:
        copy.close()


def test_what_lies_in_memory_already_is_known(tmp_path: Path) -> None:
    assert lies_in_memory("/dev/shm/anything")  # noqa: S108 - no file is made
    assert not lies_in_memory("/proc/version")
