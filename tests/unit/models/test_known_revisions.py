"""What the desired document tells a fresh pod of revisions that other pods have had."""

import pytest

from tests.support.fake_models import World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.wire.pool_desired import DesiredFailure, DesiredModel, DesiredRevision
from ullage_runtime.core.errors import ModelUnavailable

BAD = DesiredFailure(reason=Reason.INVALID_MODEL, message="the file is cut short")
GOOD = DesiredRevision(uri="file:v1")


def target(**known: object) -> DesiredModel:
    return wanted(uri="file:v2", generation=2).model_copy(update=known)


def test_a_fresh_pod_serves_the_last_good_revision_while_the_target_is_blocked() -> None:
    async def story() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(target(last_good=GOOD, failure=BAD)))
            model = await until(pool, lambda m: m.active is not None)
            assert model.active is not None
            assert model.active.uri == "file:v1"
            assert (model.reason, model.message, model.final) == (BAD.reason, BAD.message, True)
            assert [e.path for e in world.engines.alive] == ["file:v1"]
            assert (await answer(pool))[0].text == "file:v1:1 "

    in_virtual_time(story())


def test_a_blocked_target_without_a_good_revision_is_refused_with_the_reason() -> None:
    async def story() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(target(failure=BAD)))
            await until(pool, lambda m: m.final)
            with pytest.raises(ModelUnavailable, match="cut short"):
                await answer(pool)
            assert not world.engines.alive

    in_virtual_time(story())


def test_a_target_that_is_blocked_no_more_is_tried() -> None:
    async def story() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(target(last_good=GOOD, failure=BAD)))
            await until(pool, lambda m: m.active is not None)
            await pool.apply(world.document(target(last_good=GOOD)))
            await until(pool, lambda m: m.active is not None and m.active.uri == "file:v2")

    in_virtual_time(story())


def test_what_serves_here_goes_on_though_it_failed_elsewhere() -> None:
    async def story() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(target()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(target(last_good=GOOD, failure=BAD)))
            assert (await answer(pool))[0].text == "file:v2:1 "
            assert pool.report().models[0].reason is Reason.SERVING

    in_virtual_time(story())
