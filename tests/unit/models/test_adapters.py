"""Adapters are artifacts of a revision: fetched, reported, loaded and gated with it."""

import pytest

from tests.support.fake_models import World, answer, until, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.wire.pod_report import ReportedAdapter, ReportedModel
from ullage_api.wire.pool_desired import DesiredAdapter
from ullage_runtime.core.domain import Adapter, GenerateRequest
from ullage_runtime.core.errors import LoadError, ModelLoading, ModelUnavailable

TONE = DesiredAdapter(name="tone", uri="file:tone")
STYLE = DesiredAdapter(name="style", uri="file:style", scale=0.5)


def serves_target(model: ReportedModel) -> bool:
    return model.active is not None and model.active == model.target


def asking(adapter: str) -> GenerateRequest:
    return GenerateRequest(request_id="r", prompt="hi", adapter=adapter)


def test_adapters_are_fetched_loaded_and_each_passes_the_gate() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(adapters=(TONE, STYLE))))
            model = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert world.source.fetched == ["file:v1", "file:tone", "file:style"]
            (engine,) = world.engines.alive
            assert engine.spec is not None
            assert engine.spec.adapters == (
                Adapter("tone", "file:tone", 1.0),
                Adapter("style", "file:style", 0.5),
            )
            assert [r.adapter for r in engine.asked] == ["", "tone", "style"]
            assert model.active is not None
            assert model.active.adapters == (
                ReportedAdapter(name="tone", sha256="file:tone"),
                ReportedAdapter(name="style", sha256="file:style"),
            )
            assert model.active.file_bytes == 300
            assert model.active == model.target
            (card,) = pool.cards()
            assert card.adapters == ("tone", "style")

    in_virtual_time(scenario())


def test_another_adapter_scale_or_digest_is_another_revision() -> None:
    async def scenario() -> None:
        world = World()
        revisions = set()
        async with world.pool() as pool:
            for generation, adapters in enumerate(
                [(), (TONE,), (TONE, STYLE), (TONE.model_copy(update={"scale": 2.0}),)], start=1
            ):
                target = wanted(adapters=adapters, generation=generation)
                await pool.apply(world.document(target))
                model = await until(pool, serves_target)
                assert model.active is not None
                revisions.add(model.active.revision)
        assert len(revisions) == 4

    in_virtual_time(scenario())


def test_an_adapter_that_cannot_be_had_is_named_and_the_old_revision_goes_on() -> None:
    async def scenario() -> None:
        world = World()
        world.source.files["file:tone"] = LoadError(
            Reason.CHECKSUM_MISMATCH, "it is another file", final=True
        )
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(wanted(adapters=(TONE,), generation=2)))
            model = await until(pool, lambda m: m.final)
            assert model.reason is Reason.CHECKSUM_MISMATCH
            assert model.message == "adapter 'tone': it is another file"
            assert model.active is not None
            assert not model.weights_ready
            assert await answer(pool)
            with pytest.raises(ModelUnavailable, match="adapter 'tone'") as refused:
                await answer(pool, request=asking("tone"))
            assert refused.value.details == {"reason": "ChecksumMismatch"}

    in_virtual_time(scenario())


def test_a_request_for_an_adapter_that_is_still_on_its_way_is_told_to_come_again() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            world.source.seconds = 10
            await pool.apply(world.document(wanted(adapters=(TONE,), generation=2)))
            with pytest.raises(ModelLoading, match="adapter 'tone'") as early:
                await answer(pool, request=asking("tone"))
            assert early.value.retry_after
            await until(pool, serves_target)
            assert await answer(pool, request=asking("tone"))

    in_virtual_time(scenario())


def test_what_answered_last_comes_back_with_the_adapters_it_had() -> None:
    async def scenario() -> None:
        world = World()
        world.source.files |= {"file:v1": "digest-1", "file:tone": "digest-tone"}
        async with world.pool() as pool:
            await pool.apply(world.document(wanted(adapters=(TONE,))))
            first = await until(pool, lambda m: m.reason is Reason.SERVING)
            world.source.files["file:v2"] = LoadError(Reason.INVALID_MODEL, "no", final=True)
            await pool.apply(world.document(wanted(uri="file:v2", generation=2)))
            await until(pool, lambda m: m.final)
            world.engines.alive[0].die()
            again = await until(pool, lambda m: m.restarts == 1 and m.active is not None)
            assert again.active is not None
            assert first.active is not None
            assert again.active.revision == first.active.revision
            assert again.active.adapters == first.active.adapters

    in_virtual_time(scenario())
