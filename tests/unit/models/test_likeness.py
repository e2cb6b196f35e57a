"""A new embedding model takes over only where its vectors lie where the old one's do."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.fake_models import MIB, World, until, wanted
from tests.support.rollouts import serves
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings, Instructions
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.rollout import RolloutSettings, Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.models.pool import ModelPool

NEAR, FAR, LONG = (0.61, 0.79), (0.8, 0.6), (0.6, 0.8, 0.0)
NEW = "file:v2"


def embeds(
    uri: str = "file:v1",
    generation: int = 1,
    engine: EngineSettings | None = None,
    **rollout: Any,
) -> DesiredModel:
    model = wanted(uri=uri, generation=generation, engine=engine)
    target = model.target.model_copy(update={"task": Task.EMBEDDING})
    update = {"task": Task.EMBEDDING, "target": target}
    return model.model_copy(update=update | {"rollout": RolloutSettings.model_validate(rollout)})


def used(pool: ModelPool, *collections: str) -> None:
    def in_use(names: Sequence[str]) -> Sequence[str]:
        return collections if "chat" in names else ()

    pool.in_use = in_use


async def serving(pool: ModelPool, world: World) -> None:
    await pool.apply(world.document(embeds()))
    await until(pool, lambda m: m.reason is Reason.SERVING)


@pytest.mark.parametrize("strategy", ["LoadThenDrain", "DrainThenLoad"])
def test_other_vectors_than_collections_have_never_take_over(strategy: str) -> None:
    async def story() -> None:
        world = World()
        world.engines.vectors[NEW] = FAR
        async with world.pool() as pool:
            used(pool, "notes", "manuals")
            await serving(pool, world)
            await pool.apply(world.document(embeds(NEW, 2, strategy=strategy)))
            blocked = await until(pool, lambda m: m.final and m.active is not None)
            assert serves("file:v1")(blocked)
            assert blocked.reason is Reason.EMBEDDING_IN_USE
            assert blocked.transition is Transition.BLOCKED_BY_FAILED_LOAD
            assert "'notes', 'manuals'" in blocked.message
            assert "a cosine of 0.960" in blocked.message

    in_virtual_time(story())


def test_vectors_that_are_nearly_the_same_take_over() -> None:
    async def story() -> None:
        world = World()
        world.engines.vectors[NEW] = NEAR
        async with world.pool() as pool:
            used(pool, "notes")
            await serving(pool, world)
            await pool.apply(world.document(embeds(NEW, 2)))
            await until(pool, serves(NEW))

    in_virtual_time(story())


def test_other_vectors_of_the_same_length_take_over_where_no_collection_has_any() -> None:
    async def story() -> None:
        world = World()
        world.engines.vectors[NEW] = FAR
        async with world.pool() as pool:
            await serving(pool, world)
            await pool.apply(world.document(embeds(NEW, 2)))
            await until(pool, serves(NEW))

    in_virtual_time(story())


@pytest.mark.parametrize(
    ("collections", "reason"),
    [((), Reason.VALIDATION_FAILED), (("notes",), Reason.EMBEDDING_IN_USE)],
)
def test_vectors_of_another_length_are_refused_with_both_numbers(
    collections: tuple[str, ...], reason: Reason
) -> None:
    async def story() -> None:
        world = World()
        world.engines.vectors[NEW] = LONG
        async with world.pool() as pool:
            used(pool, *collections)
            await serving(pool, world)
            await pool.apply(world.document(embeds(NEW, 2)))
            blocked = await until(pool, lambda m: m.final)
            assert serves("file:v1")(blocked)
            assert blocked.reason is reason
            assert "its vectors have 3 dimensions" in blocked.message
            assert "have 2" in blocked.message

    in_virtual_time(story())


def test_a_model_that_left_memory_comes_back_to_be_compared_with() -> None:
    async def story() -> None:
        world = World()
        world.device.size = 150 * MIB
        world.engines.vectors[NEW] = FAR
        async with world.pool() as pool:
            used(pool, "notes")
            await serving(pool, world)
            other = wanted("other", "file:o")
            await asyncio.sleep(10)
            await pool.apply(world.document(embeds(), other))
            await until(pool, lambda m: m.reason is Reason.IDLE)
            await pool.apply(world.document(embeds(NEW, 2)))
            blocked = await until(pool, lambda m: m.final and m.active is not None)
            assert serves("file:v1")(blocked)
            assert blocked.reason is Reason.EMBEDDING_IN_USE

    in_virtual_time(story())


def test_each_revision_is_asked_after_its_own_instructions() -> None:
    async def story() -> None:
        world = World()
        instructions = Instructions(query="query: ", document="passage: ")
        async with world.pool() as pool:
            used(pool, "notes")
            await serving(pool, world)
            engine = EngineSettings(instructions=instructions)
            await pool.apply(world.document(embeds(NEW, 2, engine)))
            await until(pool, serves(NEW))
        old, new = (engine.embedded[-1].inputs for engine in world.engines.made[:2])
        assert {str(text).partition(" ")[0] for text in new} >= {"query:", "passage:"}
        assert [str(t).removeprefix("query: ").removeprefix("passage: ") for t in new] == list(old)

    in_virtual_time(story())


def test_a_task_that_embeds_nothing_does_not_take_a_collections_model_away() -> None:
    async def story() -> None:
        world = World()
        async with world.pool() as pool:
            used(pool, "notes")
            await serving(pool, world)
            await pool.apply(world.document(wanted(uri=NEW, generation=2)))
            blocked: ReportedModel = await until(pool, lambda m: m.final)
            assert blocked.reason is Reason.EMBEDDING_IN_USE
            assert "it embeds no texts" in blocked.message

    in_virtual_time(story())
