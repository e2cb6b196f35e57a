"""Small parts: backoff, progress, first bytes, single flight."""

import asyncio

import pytest

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.ports import CachedModel, ModelSourcePort
from ullage_runtime.models.sources import Limits, ModelCache
from ullage_runtime.models.sources.flights import Flights
from ullage_runtime.models.sources.formats import checked_head
from ullage_runtime.models.sources.progress import Progress, ProgressCallback

MODEL = CachedModel(path="/m", sha256="0" * 64, size=1)


def test_the_cache_is_a_source_port() -> None:
    port: type[ModelSourcePort] = ModelCache
    assert port is ModelCache


def test_backoff_doubles_up_to_its_cap_and_never_vanishes() -> None:
    limits = Limits(backoff_seconds=1, backoff_cap_seconds=10)
    longest = [limits.backoff(failures, 0.999999) for failures in range(1, 7)]
    assert [round(pause) for pause in longest] == [1, 2, 4, 8, 10, 10]
    assert limits.backoff(1, 0.0) == 0.5
    assert limits.backoff(10_000, 0.0) == 5


def test_progress_is_told_at_most_once_per_interval_and_at_the_end() -> None:
    told: list[tuple[int, int | None]] = []
    now = iter([0.0, 0.1, 0.2, 0.26, 0.3])
    progress = Progress(lambda done, total: told.append((done, total)), 0.25, lambda: next(now))
    for done in range(1, 6):
        progress.update(done, 9)
    progress.finish(9)
    assert told == [(1, 9), (4, 9), (9, 9)]


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n <!doctype html>", "web page"),
        (b"<?xml version='1.0'?><Error>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04rest", "ZIP"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"__meta', "safetensors"),
        (b'{"error": "no"}', "error message"),
        (b"FUGG", "46 55 47 47"),
    ],
)
def test_what_is_no_model_is_told_by_what_it_is(head: bytes, says: str) -> None:
    with pytest.raises(LoadError, match=says) as caught:
        checked_head(head, "m.gguf")
    assert (caught.value.reason, caught.value.final) == (Reason.INVALID_MODEL, True)


def test_a_gguf_head_is_fine() -> None:
    checked_head(b"GGUF\x03\x00\x00\x00", "m.gguf")


async def test_an_error_reaches_every_caller_and_the_next_begins_anew() -> None:
    flights, begun = Flights(), 0

    async def work(told: ProgressCallback) -> CachedModel:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        if begun == 1:
            raise LoadError(Reason.SOURCE_UNAVAILABLE, "no", final=False)
        return MODEL

    both = await asyncio.gather(
        *(flights.join("key", work, lambda *_: None) for _ in range(2)), return_exceptions=True
    )
    assert [type(result) for result in both] == [LoadError, LoadError]
    assert await flights.join("key", work, lambda *_: None) is MODEL
    assert begun == 2


async def test_work_has_ended_when_its_last_caller_is_cancelled() -> None:
    flights, ended = Flights(), asyncio.Event()
    begun = asyncio.Event()

    async def work(told: ProgressCallback) -> CachedModel:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return MODEL

    caller = asyncio.ensure_future(flights.join("key", work, lambda *_: None))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
