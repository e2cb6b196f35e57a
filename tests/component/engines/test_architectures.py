"""Models whose memory is not plain keys and values: batched and preempted, but sharing nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.other_models import write_recurrent, write_windowed
from tests.support.workers import chunks_of, completion, loaded, text_of
from ullage_runtime.core.domain import Chunk, FinishReason


def said(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("write", [write_recurrent, write_windowed])
async def test_they_are_computed_together_and_go_on_after_a_preemption(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    path = write(tmp_path / "other.gguf")
    alone_engine = await loaded(path, parallel=1)
    engine = await loaded(path, 256, parallel=4)
    try:
        prompts = [f"{n} is my own number" for n in range(6)]
        alone = [await chunks_of(alone_engine, completion(p, max_tokens=80)) for p in prompts[:2]]
        answers = await asyncio.gather(
            *(chunks_of(engine, completion(p, max_tokens=80)) for p in prompts)
        )
        stats = await engine.stats()
        assert [a[-1].finish for a in answers] == [FinishReason.LENGTH] * 6
        assert [said(a) for a in answers[:2]] == [said(a) for a in alone]
        assert stats.batch_width_max > 1
        assert stats.preemptions > 0
        assert stats.kv_cells_used == 0, "nothing is kept for a prompt that begins alike"
    finally:
        await engine.unload()
        await alone_engine.unload()


@pytest.mark.parametrize("write", [write_recurrent, write_windowed])
async def test_they_answer_the_same_whatever_ran_before(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    engine = await loaded(write(tmp_path / "other.gguf"))
    try:
        prompt = completion("The same beginning, long enough to share. " * 3, max_tokens=30)
        first = await text_of(engine, prompt)
        await text_of(engine, completion("Something else", max_tokens=5))
        again = await chunks_of(engine, prompt)
        assert said(again) == first
        assert again[-1].usage is not None
        assert again[-1].usage.cached_tokens == 0
    finally:
        await engine.unload()
