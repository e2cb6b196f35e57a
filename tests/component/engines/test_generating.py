"""What a real worker with a real llama.cpp generates."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from tests.support.gguf_models import (
    BOS,
    FIRST_BYTE,
    Shape,
    begun,
    finished,
    weights_of,
    write_model,
)
from tests.support.workers import (
    chat,
    chunks_of,
    completion,
    eventually,
    loaded,
    text_of,
)
from ullage_runtime.core.domain import EngineSpec, FinishReason, Usage
from ullage_runtime.core.errors import (
    ContextLengthExceeded,
    InvalidOutput,
    InvalidRequest,
    LoadError,
)
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.models.gate import pass_gate

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerEngine]:
    """A worker with a tiny model of 512 tokens of context."""
    path = write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")
    engine = await loaded(path)
    yield engine
    await engine.unload()


async def test_the_same_prompt_gives_the_same_answer_without_temperature(
    engine: WorkerEngine,
) -> None:
    first = await text_of(engine, completion("Hello", max_tokens=40))
    assert first
    assert first == await text_of(engine, completion("Hello", max_tokens=40))


async def test_a_seed_repeats_an_answer_and_another_seed_gives_another(
    engine: WorkerEngine,
) -> None:
    hot = {"temperature": 1.5, "top_k": 0, "max_tokens": 40}
    answers = [await text_of(engine, completion("Hi", seed=s, **hot)) for s in (7, 7, 8, -1)]
    assert answers[0] == answers[1] != answers[2]


async def test_usage_counts_every_token(engine: WorkerEngine) -> None:
    chunks = await chunks_of(engine, completion("Hello", max_tokens=9))
    assert chunks[0].usage == Usage(prompt_tokens=1 + len("Hello"))
    assert chunks[-1].usage == Usage(prompt_tokens=6, completion_tokens=9)
    assert chunks[-1].finish is FinishReason.LENGTH
    assert [chunk.finish for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_a_template_that_writes_the_bos_does_not_get_a_second_one(
    engine: WorkerEngine,
) -> None:
    usage = (await chunks_of(engine, chat("hi")))[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == 1 + len("[user]hi[assistant]")
    begun = (await chunks_of(engine, completion("<s>Hello", max_tokens=1)))[-1].usage
    assert begun is not None
    assert begun.prompt_tokens == 1 + len("Hello")


async def test_token_ids_are_taken_as_they_are(engine: WorkerEngine) -> None:
    ids = (BOS, *(FIRST_BYTE + byte for byte in b"Hello"))
    by_id = await text_of(engine, completion(ids, max_tokens=20))
    assert by_id == await text_of(engine, completion("Hello", max_tokens=20))


async def test_ids_outside_the_vocabulary_are_refused(engine: WorkerEngine) -> None:
    with pytest.raises(InvalidRequest, match="token 259 is not in the model's vocabulary of 259"):
        await chunks_of(engine, completion((1, 259)))


async def test_a_templates_own_complaint_reaches_the_client(engine: WorkerEngine) -> None:
    with pytest.raises(InvalidRequest, match="unknown role robot"):
        await chunks_of(engine, chat("hi", role="robot"))


async def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(
    engine: WorkerEngine,
) -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        await chunks_of(engine, completion("x" * 511))
    assert refused.value.details == {"prompt_tokens": 512, "context_length": 512}
    assert "512 tokens" in refused.value.message


async def test_megabytes_are_refused_without_being_tokenized(engine: WorkerEngine) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(ContextLengthExceeded, match="at least 1747626 tokens"):
        await chunks_of(engine, completion("x" * (10 << 20)))
    assert asyncio.get_running_loop().time() - began < 3
    with pytest.raises(InvalidRequest, match="too large"):
        await chunks_of(engine, completion("x" * (65 << 20)))
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_a_generation_ends_where_the_context_does(engine: WorkerEngine) -> None:
    last = (await chunks_of(engine, completion("x" * 500)))[-1]
    assert last.finish is FinishReason.LENGTH
    assert last.usage == Usage(prompt_tokens=501, completion_tokens=11)


async def test_no_tokens_wanted_gives_usage_only(engine: WorkerEngine) -> None:
    chunks = await chunks_of(engine, completion("Hello", max_tokens=0))
    assert [(c.text, c.usage, c.finish) for c in chunks] == [("", Usage(6, 0), FinishReason.LENGTH)]


async def test_a_stop_string_across_tokens_ends_the_answer_before_it(
    engine: WorkerEngine,
) -> None:
    whole = await text_of(engine, completion("Hello", max_tokens=60))
    plain = [i for i in range(5, len(whole) - 3) if whole[i : i + 3].isascii()]
    stop = whole[plain[0] : plain[0] + 3]
    chunks = await chunks_of(engine, completion("Hello", max_tokens=60, stop=("never", stop)))
    assert "".join(c.text for c in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish is FinishReason.STOP


async def test_requests_at_once_are_all_answered(engine: WorkerEngine) -> None:
    alone = [await text_of(engine, completion(p, max_tokens=20)) for p in "abcde"]
    together = await asyncio.gather(
        *(text_of(engine, completion(p, max_tokens=20)) for p in "abcde")
    )
    assert together == alone


async def test_closing_the_iterator_ends_the_generation_within_a_step(
    engine: WorkerEngine,
) -> None:
    async with aclosing(engine.generate(completion("Hello"))) as chunks:  # type: ignore[type-var]
        async for _ in chunks:
            break

    async def idle() -> bool:
        return (await engine.stats()).requests_running == 0

    await eventually(idle, seconds=5)
    assert await text_of(engine, completion("Hello", max_tokens=5))


async def test_a_slow_reader_gets_everything_in_fewer_chunks_and_holds_nobody_up(
    engine: WorkerEngine,
) -> None:
    quick = await chunks_of(engine, completion("Hello", max_tokens=300))
    async with aclosing(engine.generate(completion("Hello", max_tokens=300))) as chunks:  # type: ignore[type-var]
        text = (await anext(chunks)).text
        assert await text_of(engine, completion("other", max_tokens=5))

        async def written() -> bool:
            return (await engine.stats()).requests_running == 0

        await eventually(written)
        rest = [chunk async for chunk in chunks]
    assert text + "".join(c.text for c in rest) == "".join(c.text for c in quick)
    assert len(rest) < 70 < len(quick)
    assert rest[-1].finish is FinishReason.LENGTH


async def test_stats_are_answered_while_the_engine_decodes(engine: WorkerEngine) -> None:
    async with aclosing(engine.generate(completion("Hello"))) as chunks:  # type: ignore[type-var]
        await anext(chunks)
        stats = await engine.stats()
    assert stats.requests_running == 1
    assert stats.resident_bytes > 10 << 20


async def test_a_long_prompt_is_given_up_within_a_step_of_its_prefill(tmp_path: Path) -> None:
    shape = Shape(width=256, layers=4, heads=4, feed_forward=512, context=4096)
    engine = await loaded(write_model(tmp_path / "wide.gguf", shape))
    try:
        loop = asyncio.get_running_loop()
        prompt = completion("y" * 3000, max_tokens=1)
        began = loop.time()
        await chunks_of(engine, prompt)
        whole = loop.time() - began
        other = completion("w" * 3000, max_tokens=1)
        task = asyncio.create_task(chunks_of(engine, other))

        async def running() -> bool:
            return (await engine.stats()).requests_running == 1

        await eventually(running)
        task.cancel()
        began = loop.time()
        await chunks_of(engine, completion("z", max_tokens=1))
        assert loop.time() - began < whole / 2
    finally:
        await engine.unload()


async def test_a_gap_is_filled_from_both_its_sides(tmp_path: Path) -> None:
    path = write_model(tmp_path / "infill.gguf", Shape(infill_tokens=True))
    engine = await loaded(path)
    try:
        asked = replace(completion("Hello", max_tokens=20), suffix="World", echo=True)
        chunks = await chunks_of(engine, asked)
        before, after, middle = (FIRST_BYTE + 256 + number for number in range(3))
        hello, world = ([FIRST_BYTE + byte for byte in text] for text in (b"Hello", b"World"))
        ids = (BOS, before, *hello, after, *world, middle)
        assert chunks[0].usage == Usage(prompt_tokens=len(ids))
        filled = await text_of(engine, completion(ids, max_tokens=20))
        assert "".join(chunk.text for chunk in chunks) == "Hello" + filled
        with pytest.raises(ContextLengthExceeded):
            await chunks_of(engine, replace(asked, suffix="x" * 600))
    finally:
        await engine.unload()


async def test_an_answer_may_begin_with_its_prompt(engine: WorkerEngine) -> None:
    for prompt in ("Hello", (BOS, *(FIRST_BYTE + byte for byte in b"Hello"))):
        asked = completion(prompt, max_tokens=20)
        echoed = await chunks_of(engine, replace(asked, echo=True))
        assert "".join(c.text for c in echoed) == "Hello" + await text_of(engine, asked)
        assert echoed[-1].usage is not None
        assert echoed[-1].usage.completion_tokens == 20
        nothing = replace(completion(prompt, max_tokens=0), echo=True)
        assert await text_of(engine, nothing) == "Hello"


@pytest.mark.parametrize("has_markers", [False, True])
async def test_a_chat_without_a_template_needs_the_markers_of_chatml(
    tmp_path: Path, *, has_markers: bool
) -> None:
    shape = Shape(template=None, chatml_tokens=has_markers)
    engine = await loaded(write_model(tmp_path / "plain.gguf", shape))
    try:
        if has_markers:
            usage = (await chunks_of(engine, chat("hi")))[-1].usage
            assert usage is not None
            text = "user\nhi" + "\n" + "assistant\n"
            assert usage.prompt_tokens == len(text) + 1 + 3, "BOS, two starts and an end"
        else:
            with pytest.raises(InvalidRequest, match="no chat template"):
                await chunks_of(engine, chat("hi"))
    finally:
        await engine.unload()


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_k": 0}, {"logprobs": 2}])
async def test_numbers_that_are_not_finite_are_an_error_and_spoil_no_other_answer(
    tmp_path: Path, sampling: dict[str, object]
) -> None:
    engine = await loaded(_spoilt_by(tmp_path / "spoilt.gguf", "!"))
    try:
        usual = await text_of(engine, completion("Hello", max_tokens=8))
        beside = asyncio.create_task(text_of(engine, completion("Hello", max_tokens=8)))
        with pytest.raises(InvalidOutput, match="not finite"):
            await chunks_of(
                engine, replace(completion("Oh!", max_tokens=8, **sampling), request_id="s")
            )
        assert usual
        assert await beside == usual == await text_of(engine, completion("Hello", max_tokens=8))
        assert (await engine.stats()).requests_running == 0
    finally:
        await engine.unload()


async def test_a_model_whose_numbers_are_not_finite_passes_no_gate(tmp_path: Path) -> None:
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        given = await engine.load(EngineSpec(path=str(_spoilt_by(tmp_path / "spoilt.gguf", "H"))))
        with pytest.raises(LoadError, match=r"cannot generate.*not finite") as failed:
            await pass_gate(engine, given)
        assert failed.value.final
    finally:
        await engine.unload()


def _spoilt_by(path: Path, character: str) -> Path:
    """Write a model that computes no numbers once it has read a character, and return its path."""
    shape = Shape(printable=True)
    writer, tokens = begun(path, "llama", shape)
    weights = weights_of(shape, tokens)
    dict(weights)["token_embd.weight"][FIRST_BYTE + ord(character)] = np.nan
    return finished(path, writer, weights)
