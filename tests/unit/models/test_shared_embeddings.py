"""Each text is computed once: those of before are kept, those of now are shared."""

import asyncio
from array import array
from dataclasses import dataclass, field

import pytest

from tests.support.runtimes import eventually
from ullage_runtime.core.errors import ContextLengthExceeded, EngineDied
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, Said, TextOrTokens
from ullage_runtime.models.kept import Kept, Outcome
from ullage_runtime.models.shared_embeddings import SharedEmbeddings, Whose
from ullage_runtime.models.shelf import Vector

LONGEST = 9


@dataclass
class Engine:
    """Embeds a text as its length, when it is told to, and remembers what it was asked."""

    asked: list[tuple[TextOrTokens, ...]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    errors: list[Exception] = field(default_factory=list)

    async def __call__(self, request: EmbedRequest) -> PooledAnswer:
        self.asked.append(request.inputs)
        for index, text in enumerate(request.inputs):
            if len(text) > LONGEST and not request.truncate:
                raise ContextLengthExceeded(f"input[{index}] is too long")
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        return PooledAnswer(
            tuple(Said(array("f", [len(text)]).tobytes()) for text in request.inputs),
            tuple(len(text) for text in request.inputs),
        )


class World:
    """The embeddings of a process, whose time stands still unless it is told to go on."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.now = 0.0
        self.kept: Kept[Vector] = Kept("embeddings", max_bytes, lambda: self.now)
        self.shared = SharedEmbeddings(self.kept, 60)
        self.engine = Engine()
        self.engine.go.set()

    async def embed(self, *inputs: TextOrTokens, **given: object) -> PooledAnswer:
        loop = asyncio.get_running_loop()
        until = loop.time() + float(str(given.pop("seconds", 60)))
        whose = Whose("embed", str(given.pop("revision", "r1")), until)
        request = EmbedRequest("id", inputs, **given)  # type: ignore[arg-type]
        return await self.shared.embed(whose, request, self.engine)

    def begin(self, *inputs: TextOrTokens, **given: object) -> "asyncio.Task[PooledAnswer]":
        return asyncio.create_task(self.embed(*inputs, **given))

    def counted(self) -> list[int]:
        return [self.kept.lookups["embed", each] for each in Outcome]


async def test_a_text_that_was_embedded_is_not_embedded_again() -> None:
    world = World()
    first = await world.embed("a", "bb")
    again = await world.embed("bb", "ccc", "a")
    assert world.engine.asked == [("a", "bb"), ("ccc",)]
    assert again.values == (first.values[1], array("f", [3]).tobytes(), first.values[0])
    assert (again.lengths, again.tokens, again.cached_tokens) == ((2, 3, 1), 6, 3)
    assert first.cached_tokens == 0
    assert world.counted() == [2, 0, 0, 3]


async def test_a_text_that_is_there_twice_is_computed_once_and_counted_twice() -> None:
    world = World()
    answer = await world.embed("bb", "a", "bb")
    assert world.engine.asked == [("bb", "a")]
    assert (answer.tokens, answer.cached_tokens) == (5, 2)


@pytest.mark.parametrize(
    "given",
    [{"tenant": "other"}, {"revision": "r2"}, {"truncate": True}],
    ids=["tenant", "revision", "truncation"],
)
async def test_what_may_have_another_vector_or_another_reader_is_embedded_for_itself(
    given: dict[str, object],
) -> None:
    world = World()
    await world.embed("a")
    await world.embed("a", **given)
    assert world.engine.asked == [("a",), ("a",)]


async def test_texts_and_tokens_are_not_mistaken_for_each_other() -> None:
    world = World()
    await world.embed("1,2", (1, 2), (12,))
    assert world.engine.asked == [("1,2", (1, 2), (12,))]


async def test_a_vector_is_forgotten_after_its_time() -> None:
    world = World()
    await world.embed("a")
    world.now = 60
    await world.embed("a")
    assert len(world.engine.asked) == 2


async def test_texts_that_are_under_way_are_waited_for_and_not_computed_again() -> None:
    world = World(max_bytes=0)
    world.engine.go.clear()
    first = world.begin("a", "bb")
    await eventually(lambda: len(world.engine.asked) == 1)
    second = world.begin("bb", "ccc")
    await eventually(lambda: len(world.engine.asked) == 2)
    world.engine.go.set()
    await asyncio.gather(first, second)
    assert world.engine.asked == [("a", "bb"), ("ccc",)]
    assert (second.result().lengths, second.result().cached_tokens) == ((2, 3), 2)
    assert world.counted() == [0, 0, 1, 3]


@pytest.mark.parametrize("how", ["leaves", "fails"])
async def test_whoever_waited_computes_for_himself_what_another_request_did_not(how: str) -> None:
    world = World()
    world.engine.go.clear()
    first = world.begin("a")
    await eventually(lambda: len(world.engine.asked) == 1)
    others = [world.begin("a") for _ in range(3)]
    await asyncio.sleep(0)
    if how == "leaves":
        first.cancel()
    else:
        world.engine.errors.append(EngineDied("gone", retry_after=1))
        world.engine.go.set()
    await asyncio.wait({first})
    world.engine.go.set()
    answers = await asyncio.gather(*others)
    assert {answer.lengths for answer in answers} == {(1,)}
    assert world.engine.asked == [("a",), ("a",)], "one of those who waited computed for all"
    assert first.cancelled() or isinstance(first.exception(), EngineDied)


async def test_an_error_names_the_text_by_its_place_in_the_request() -> None:
    world = World()
    await world.embed("a")
    with pytest.raises(ContextLengthExceeded, match=r"input\[2\]"):
        await world.embed("a", "bb", "too long a text")
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\]"):
        await world.embed("too long a text")


async def test_waiting_for_another_request_ends_with_ones_own_time() -> None:
    world = World()
    world.engine.go.clear()
    first = world.begin("a")
    await eventually(lambda: len(world.engine.asked) == 1)
    with pytest.raises(TimeoutError):
        await world.embed("a", seconds=0.01)
    world.engine.go.set()
    assert (await first).lengths == (1,)
    assert (await world.embed("a")).cached_tokens == 1
