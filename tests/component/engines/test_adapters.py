"""LoRA adapters on real workers: who asks for one gets it, and nobody else does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import pytest_asyncio

from tests.support.gguf_models import Shape, write_model
from tests.support.lora_files import write_adapter
from tests.support.scoring import check_alone, ids_of, written
from tests.support.workers import chat, chunks_of, completion, loaded, text_of
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Adapter, EngineSpec, FinishReason, LikelyToken
from ullage_runtime.core.errors import InvalidRequest, LoadError
from ullage_runtime.engines.worker.engine import WorkerEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUIDE = Path(__file__).parents[3] / "examples" / "models" / "guide-v1.gguf"
NAMES = ("", "tone", "style")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    return write_model(folder / "tiny.gguf", Shape(context=2048))


def adapters_for(model: Path, folder: Path) -> tuple[Adapter, ...]:
    tone = write_adapter(folder / f"{model.stem}-tone.gguf", model, seed=1)
    style = write_adapter(folder / f"{model.stem}-style.gguf", model, seed=2)
    return (
        Adapter("tone", str(tone)),
        Adapter("style", str(style), scale=1.5),
        Adapter("silent", str(tone), scale=0.0),
        Adapter("whisper", str(tone), scale=0.05),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny: Path, folder: Path) -> AsyncIterator[WorkerEngine]:
    engine = await loaded(tiny, parallel=16, adapters=adapters_for(tiny, folder))
    yield engine
    await engine.unload()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guide(folder: Path) -> AsyncIterator[WorkerEngine]:
    engine = await loaded(GUIDE, adapters=adapters_for(GUIDE, folder))
    yield engine
    await engine.unload()


async def likeliest(engine: WorkerEngine, adapter: str) -> tuple[LikelyToken, ...]:
    """Return what the model holds likeliest after a question, prompt computed anew."""
    asked = chat("What is Ullage?", max_tokens=1, logprobs=20)
    asked = replace(asked, adapter=adapter, tenant=f"{adapter} alone")
    return (await chunks_of(engine, asked))[-1].logprobs[0].likeliest


async def test_an_adapter_changes_what_the_guide_says_and_scale_0_changes_nothing(
    guide: WorkerEngine,
) -> None:
    base = await likeliest(guide, "")
    tone, style = await likeliest(guide, "tone"), await likeliest(guide, "style")
    assert len({base[0], tone[0], style[0]}) == 3
    assert await likeliest(guide, "silent") == base
    # A little of it moves the numbers a little: the scale is really what is multiplied.
    whisper = {t.text: t.logprob for t in await likeliest(guide, "whisper")}
    moved = [abs(whisper[t.text] - t.logprob) for t in base[:3]]
    assert 0 < max(moved) < 1
    assert await likeliest(guide, "") == base


async def test_the_guide_itself_answers_as_ever_among_those_with_adapters(
    guide: WorkerEngine,
) -> None:
    asked = chat("What is Ullage?", max_tokens=40)
    alone = await text_of(guide, asked)
    assert alone.startswith("Ullage is a self-service platform")
    mixed = [replace(asked, adapter=name) for name in ("", "tone", "style", "", "tone", "")]
    answers = await asyncio.gather(*(text_of(guide, request) for request in mixed))
    assert [text for text, r in zip(answers, mixed, strict=True) if not r.adapter] == [alone] * 3
    assert all(text != alone for text, r in zip(answers, mixed, strict=True) if r.adapter)


async def test_requests_with_and_without_adapters_write_what_they_write_alone(
    engine: WorkerEngine,
) -> None:
    asked = [(f"{n:02d} begins here", NAMES[n % 3]) for n in range(15)]
    requests = [
        replace(completion(text, max_tokens=24, logprobs=0), adapter=name) for text, name in asked
    ]
    before = await engine.stats()
    answers = await asyncio.gather(*(chunks_of(engine, request) for request in requests))
    after = await engine.stats()
    # Each group's requests are computed together.
    assert after.steps - before.steps < 15 * 24 / 2
    for (text, name), answer in list(zip(asked, answers, strict=True))[::2]:
        assert len(written(answer)) == 24
        await check_alone(engine, ids_of(text), written(answer), every=6, adapter=name)


async def test_cells_for_a_third_of_the_demand_fail_nobody(tiny: Path, folder: Path) -> None:
    engine = await loaded(tiny, 256, parallel=8, adapters=adapters_for(tiny, folder))
    try:
        asked = [(f"{n:02d} wants more", NAMES[n % 3]) for n in range(12)]
        requests = [
            replace(completion(text, max_tokens=50, logprobs=0), adapter=name)
            for text, name in asked
        ]
        answers = await asyncio.gather(*(chunks_of(engine, request) for request in requests))
        stats = await engine.stats()
        assert [a[-1].finish for a in answers] == [FinishReason.LENGTH] * 12
        assert stats.preemptions > 0
        assert stats.kv_cells_running == stats.requests_running == 0
        for (text, name), answer in list(zip(asked, answers, strict=True))[::2]:
            await check_alone(engine, ids_of(text), written(answer), every=10, adapter=name)
    finally:
        await engine.unload()


async def test_a_beginning_computed_with_one_adapter_is_not_used_with_another(
    engine: WorkerEngine,
) -> None:
    asked = completion("Much the same for everybody here. " * 4, max_tokens=4)

    async def cached(adapter: str) -> int:
        last = (await chunks_of(engine, replace(asked, adapter=adapter)))[-1]
        assert last.usage is not None
        return last.usage.cached_tokens

    assert [await cached(name) for name in ("tone", "style", "")] == [0, 0, 0]
    assert await cached("tone") > 100


async def test_an_adapter_that_was_not_loaded_is_a_bad_request(engine: WorkerEngine) -> None:
    with pytest.raises(InvalidRequest, match="no adapter 'other'"):
        await chunks_of(engine, replace(completion("Hello"), adapter="other"))
    assert await text_of(engine, completion("Hello", max_tokens=3))


async def test_adapters_count_as_weights(engine: WorkerEngine, tiny: Path, folder: Path) -> None:
    adapters = adapters_for(tiny, folder)[:2]
    tensors = sum(int(t.n_bytes) for a in adapters for t in gguf.GGUFReader(a.path).tensors)
    without = await engine.estimate(EngineSpec(str(tiny)))
    with_them = await engine.estimate(EngineSpec(str(tiny), adapters=adapters))
    assert with_them.weights - without.weights == tensors


def unfit(folder: Path, model: Path) -> dict[str, tuple[Path, str]]:
    """Return files that are no adapters for a model, with what is to be said of each."""
    whole = write_adapter(folder / "whole.gguf", model).read_bytes()
    cut, page = folder / "cut.gguf", folder / "page.gguf"
    cut.write_bytes(whole[:-500])
    page.write_text("<html>no adapter is here at all</html>")
    foreign = write_adapter(folder / "foreign.gguf", model, architecture="qwen2")
    wide = write_adapter(folder / "wide.gguf", model, widen=32)
    activated = write_adapter(folder / "activated.gguf", model, invocation=(5, 6))
    return {
        "cut": (cut, "the file is truncated"),
        "page": (page, "not a GGUF file"),
        "model": (model, "its general.type is None"),
        "foreign": (foreign, "made for architecture 'qwen2', and the model is of 'llama'"),
        "wide": (wide, "has incorrect shape"),
        "activated": (activated, "activated LoRA"),
        "none": (folder / "none.gguf", "cannot be read"),
    }


async def test_what_is_no_adapter_of_the_model_is_named_and_said_in_words(
    tiny: Path, folder: Path
) -> None:
    good = adapters_for(tiny, folder)[0]
    for name, (path, words) in unfit(folder, tiny).items():
        with pytest.raises(LoadError) as failed:
            await loaded(tiny, adapters=(good, Adapter(name, str(path))))
        assert failed.value.reason is Reason.INVALID_MODEL
        assert failed.value.final == (name != "none"), "a file that is not there may come yet"
        assert f"adapter {name!r}" in failed.value.message
        assert words in failed.value.message
