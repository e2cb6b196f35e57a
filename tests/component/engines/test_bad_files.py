"""Files that are no models, or broken ones: each is named, and none ends the server."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gguf_models import write_model
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import EngineSpec, Footprint
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[WorkerEngine]:
    """A worker that reads one file after the other."""
    engine = await WorkerEngine.start("LlamaCpp")
    yield engine
    await engine.unload()


async def estimated(engine: WorkerEngine, path: Path) -> Footprint:
    engine_of(str(path))
    return await engine.estimate(EngineSpec(path=str(path)))


async def test_a_truncated_file_is_named_with_its_sizes(
    engine: WorkerEngine, tmp_path: Path
) -> None:
    whole = write_model(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:-1000])
    with pytest.raises(LoadError) as failed:
        await estimated(engine, path)
    assert (failed.value.reason, failed.value.final) == (Reason.INVALID_MODEL, True)
    assert f"the file has {len(whole) - 1000}" in failed.value.message
    assert f"end at byte {len(whole)}" in failed.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!doctype html><title>404</title>", "it begins with '3c 21 64 6f'"),
        (b"", "it begins with ''"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1 is not supported"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "no tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "more than the 65536 allowed"),
        (b"GGUF" + struct.pack("<I", 3), "the file is truncated: 8 bytes"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 50), "header wants 1125899906842624 bytes"),
    ],
)
async def test_what_is_no_model_is_said_in_words(
    engine: WorkerEngine, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadError) as failed:
        await estimated(engine, path)
    assert failed.value.reason is Reason.INVALID_MODEL
    assert failed.value.final
    assert message in failed.value.message


async def test_an_architecture_nobody_knows_is_named(engine: WorkerEngine, tmp_path: Path) -> None:
    data = write_model(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "odd.gguf"
    path.write_bytes(data.replace(b"llama", b"xlama", 1))
    with pytest.raises(LoadError, match="xlama") as failed:
        await estimated(engine, path)
    assert failed.value.reason is Reason.INVALID_MODEL


async def test_a_missing_file_may_come_yet(engine: WorkerEngine, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read") as failed:
        await estimated(engine, tmp_path / "none.gguf")
    assert not failed.value.final
