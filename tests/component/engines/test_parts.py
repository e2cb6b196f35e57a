"""GGUF models in several files: all of them are one model, and what is wrong with one is said."""

import pathlib
from collections.abc import Callable

import pytest

from tests.support.fake_models import answer, until, wanted
from tests.support.gguf_models import Shape, write_model, write_parts
from tests.support.workers import completion
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.found import found_models
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.sources import ModelCache

SHAPE = Shape(width=256, layers=2, feed_forward=1024)


@pytest.fixture
def parts(tmp_path: pathlib.Path) -> list[pathlib.Path]:
    found = write_parts(tmp_path / "models" / "big.gguf", SHAPE)
    assert len(found) > 2
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "models").mkdir()


async def test_a_model_in_parts_is_the_model_in_one_file(
    tmp_path: pathlib.Path, parts: list[pathlib.Path]
) -> None:
    """From the address of any part to an answer, through the cache's own rules."""
    write_model(tmp_path / "models" / "whole.gguf", SHAPE)
    models = [
        wanted("whole", "file:whole.gguf", uid="whole"),
        wanted("parts", f"file:{parts[1].name}", uid="parts"),
    ]
    settings = RuntimeSettings(file_roots=(str(tmp_path / "models"),))
    document = PoolDesired(
        namespace="team", pool="default", models=tuple(models), settings=settings
    ).sealed(1)
    async with ModelPool(
        source=ModelCache(tmp_path / "cache"),
        pod_name="p",
        ordinal=0,
        version="0",
        devices=[HostMemory()],
    ) as pool:
        await pool.apply(document)
        said = {}
        for model in models:
            await until(pool, lambda m: m.reason is Reason.SERVING, model.name)
            question = completion("the tank", max_tokens=12)
            said[model.name] = "".join(c.text for c in await answer(pool, model.name, question))
    assert said["parts"] == said["whole"] != ""


async def test_an_estimate_counts_the_tensors_of_all_parts(
    tmp_path: pathlib.Path, parts: list[pathlib.Path]
) -> None:
    whole = write_model(tmp_path / "whole.gguf", SHAPE)
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        wanted = await engine.estimate(EngineSpec(str(whole)))
        found = await engine.estimate(EngineSpec(str(parts[0])))
        loaded = await engine.load(EngineSpec(str(parts[0])))
    finally:
        await engine.unload()
    assert (found.weights, found.kv_cache) == (wanted.weights, wanted.kv_cache)
    assert not loaded.maps_file, "a copy of one file would not be the model"


def lost(parts: list[pathlib.Path]) -> pathlib.Path:
    parts[1].unlink()
    return parts[0]


def cut(parts: list[pathlib.Path]) -> pathlib.Path:
    parts[1].write_bytes(parts[1].read_bytes()[:-999])
    return parts[0]


def mixed_up(parts: list[pathlib.Path]) -> pathlib.Path:
    parts[1].write_bytes(parts[2].read_bytes())
    return parts[0]


def renamed(parts: list[pathlib.Path]) -> pathlib.Path:
    return parts[0].rename(parts[0].with_name("big.gguf"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lost, "00002-of-00004.gguf, a part of the model, is not beside the first one"),
        (cut, "the file is truncated"),
        (mixed_up, "says that it is another one"),
        (renamed, "found by their names"),
        (lambda parts: parts[1], "the file is part 2 of"),
    ],
)
async def test_what_is_wrong_with_a_part_is_said_before_anything_is_loaded(
    parts: list[pathlib.Path],
    damage: Callable[[list[pathlib.Path]], pathlib.Path],
    says: str,
) -> None:
    path = damage(parts)
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        for attempt in (engine.estimate, engine.load):
            with pytest.raises(LoadError, match=says) as failed:
                await attempt(EngineSpec(str(path)))
            assert failed.value.reason is Reason.INVALID_MODEL
        assert (await engine.stats()).resident_bytes > 0, "its process lives"
    finally:
        await engine.unload()


def test_a_folder_has_it_once(tmp_path: pathlib.Path, parts: list[pathlib.Path]) -> None:
    findings = found_models(tmp_path / "models", tmp_path / "cache")
    assert [(found.path, found.task) for found in findings.models] == [(parts[0], Task.CHAT)]
