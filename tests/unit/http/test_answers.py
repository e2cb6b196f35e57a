"""How a request's steps become a stream."""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Self, cast

from ullage_runtime.core.domain import Chunk, FinishReason, Usage
from ullage_runtime.core.errors import EngineFailed, ServingError
from ullage_runtime.http.openai.answers import StreamedAnswer
from ullage_runtime.http.openai.generation import End, Generation, Step
from ullage_runtime.http.openai.shapes import CompletionShape

Item = Step | End | ServingError | None


class Played:
    """A generation whose steps come in batches: each batch is there at once."""

    def __init__(self, *batches: list[Item]) -> None:
        self._batches = [list(batch) for batch in batches]
        self.usage = Usage(3, 4)
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @property
    def is_ahead(self) -> bool:
        return bool(self._batches[0])

    async def next(self, seconds: float) -> Step | End | None:
        while not self._batches[0]:
            del self._batches[0]
        item = self._batches[0].pop(0)
        if isinstance(item, ServingError):
            raise item
        return item


def step(index: int, text: str, finish: FinishReason | None = None) -> Step:
    return Step(index, "rev", Chunk(text, finish=finish))


async def sent(*batches: list[Item], with_usage: bool = False) -> list[bytes]:
    bodies = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    answer = StreamedAnswer(
        cast("Generation", Played(*batches)),
        CompletionShape("id", 1, "m", "default"),
        heartbeat=1,
        with_usage=with_usage,
    )
    await answer({"type": "http"}, receive, send)
    return bodies


async def test_what_a_step_adds_to_several_choices_goes_out_in_one_piece() -> None:
    stop = FinishReason.STOP
    first, second, last = await sent(
        [step(0, "a"), step(1, "b"), step(2, "c")],
        [step(0, "d"), step(1, "e")],
        [step(0, "f", stop), step(1, "g", stop), step(2, "h", stop), End()],
        with_usage=True,
    )
    assert [body.count(b"data: ") for body in (first, second, last)] == [3, 2, 5]
    assert last.endswith(b"data: [DONE]\n\n")
    assert b'"total_tokens":7' in last


async def test_what_was_made_before_an_error_is_still_sent() -> None:
    body, last = await sent([step(0, "a")], [step(0, "b"), EngineFailed("gone", retry_after=1)])
    assert b'"text":"a"' in body
    assert last.index(b'"text":"b"') < last.index(b"engine_failed")
    assert b"[DONE]" not in last


async def test_a_long_wait_is_a_comment_of_its_own() -> None:
    waited, body, last = await sent([None], [step(0, "a", FinishReason.STOP)], [End()])
    assert waited == b": waiting\n\n"
    assert b'"text":"a"' in body
    assert last == b"data: [DONE]\n\n"
