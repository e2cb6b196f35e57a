"""How one revision takes another's place: strategies, checks, and what a failure costs."""

import asyncio

import pytest

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.rollouts import is_over, serves, swapped
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.rollout import Strategy, SwapStep, Transition
from ullage_api.kinds.sampling import SamplingDefaults
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_runtime.core.domain import Footprint, GenerateRequest, Sampling
from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.models.journal import MemoryJournal


def long(tokens: int) -> GenerateRequest:
    return GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=tokens))


def test_auto_loads_beside_the_old_revision_where_there_is_room_and_says_so() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            first = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert (first.transition, first.swap) == (Transition.UP_TO_DATE, None)
            await pool.apply(world.document(swapped()))
            under_way = await until(
                pool, lambda m: m.swap is not None and m.swap.target is not None
            )
            assert under_way.transition is Transition.IN_PROGRESS
            done = await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            assert done.swap is not None
            assert done.active is not None
            assert first.active is not None
            assert done.swap.strategy is Strategy.LOAD_THEN_DRAIN
            assert done.swap.previous == first.active.revision
            assert done.swap.target == done.active.revision
            assert done.swap.seconds == pytest.approx(1.2, abs=0.3)
            assert done.swap.drain_seconds is None
            assert done.active.load_seconds == pytest.approx(1)

    in_virtual_time(scenario())


def test_auto_drains_first_where_there_is_no_room_and_says_so() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            stream = asyncio.create_task(answer(pool, request=long(50)))
            await asyncio.sleep(1)
            await pool.apply(world.document(swapped()))
            drains = await until(
                pool, lambda m: m.swap is not None and m.swap.step is SwapStep.DRAINING
            )
            assert drains.transition is Transition.IN_PROGRESS
            held = asyncio.create_task(answer(pool))
            done = await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            assert done.swap is not None
            assert done.swap.strategy is Strategy.DRAIN_THEN_LOAD
            assert done.swap.drain_seconds == pytest.approx(4, abs=0.5)
            assert len(await stream) == 50
            assert (await held)[0].text == "file:v2:1 "

    in_virtual_time(scenario())


def test_drain_then_load_drains_although_there_is_room() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(strategy="DrainThenLoad")))
            await until(pool, lambda m: m.swap is not None and m.swap.step is SwapStep.LOADING)
            assert [e.path for e in world.engines.alive] == ["file:v2"]
            done = await until(pool, serves("file:v2"))
            assert done.swap is not None
            assert done.swap.strategy is Strategy.DRAIN_THEN_LOAD

    in_virtual_time(scenario())


def test_load_then_drain_waits_for_room_and_never_takes_the_old_revision_down() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(strategy="LoadThenDrain")))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            assert blocked.reason is Reason.WAITING_FOR_MEMORY
            assert not blocked.final
            assert (await answer(pool))[0].text == "file:v1:1 "
            assert len(world.engines.alive) == 1

    in_virtual_time(scenario())


def test_requests_that_do_not_end_within_drain_seconds_are_cut_off() -> None:
    async def scenario(strategy: str) -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            endless = asyncio.create_task(answer(pool, request=long(1000)))
            await asyncio.sleep(1)
            await pool.apply(world.document(swapped(strategy=strategy, drainSeconds=5)))
            await until(pool, serves("file:v2"))
            with pytest.raises(EngineFailed):
                await endless
            assert asyncio.get_running_loop().time() < 12
            assert [e.path for e in world.engines.alive] == ["file:v2"]

    in_virtual_time(scenario("LoadThenDrain"))
    in_virtual_time(scenario("DrainThenLoad"))


def test_a_swap_that_would_hold_requests_for_too_long_does_not_start() -> None:
    async def scenario() -> None:
        world = World()
        world.engines.load_seconds = 20
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            stream = asyncio.create_task(answer(pool, request=long(30)))
            await asyncio.sleep(1)
            limits = ServingLimits(hold_seconds=25)
            model = swapped(strategy="DrainThenLoad", drainSeconds=10, limits=limits)
            await pool.apply(world.document(model))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            assert blocked.reason is Reason.SWAP_TOO_LONG
            assert "for up to 30 s, 10 s until" in blocked.message
            assert "20 s to load" in blocked.message
            assert "serving.holdSeconds is 25" in blocked.message
            assert serves("file:v1")(blocked)
            assert len(await stream) == 30
            # Nothing runs any more, so that nobody has to be waited for.
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def test_an_answer_that_is_not_as_expected_blocks_the_swap_with_all_there_is_to_know() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            prompts = [
                {"prompt": "Say v2", "expect": {"contains": "v2:1"}},
                {"prompt": "2+2=", "expect": {"contains": "four"}},
            ]
            await pool.apply(world.document(swapped(validation=prompts)))
            blocked = await until(pool, lambda m: m.final)
            assert blocked.transition is Transition.BLOCKED_BY_FAILED_LOAD
            assert blocked.reason is Reason.VALIDATION_FAILED
            assert "rollout.validation[1], '2+2='" in blocked.message
            assert "was answered 'file:v2:1 file:v2:2" in blocked.message
            assert "expected was one that contains 'four'" in blocked.message
            assert "last words" not in blocked.message, "the engine is not to blame"
            assert blocked.swap is not None
            assert blocked.swap.log == ("the last thing it said",)
            assert serves("file:v1")(blocked)
            asked = [r for r in world.engines.made[1].asked if r.messages]
            assert [r.messages[-1].content for r in asked if r.messages][1:] == ["Say v2", "2+2="]
            assert all(r.sampling.temperature == 0 for r in asked)
            await asyncio.sleep(3600)
            assert len(world.engines.made) == 2
            mended = swapped(generation=3, validation=prompts[:1])
            await pool.apply(world.document(mended))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def test_an_answer_that_takes_too_long_blocks_the_swap() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            prompts = [{"prompt": "2+2=", "maxSeconds": 3}]
            await pool.apply(world.document(swapped(validation=prompts)))
            blocked = await until(pool, lambda m: m.final)
            assert blocked.reason is Reason.VALIDATION_FAILED
            assert "was not answered within 3 s" in blocked.message

    in_virtual_time(scenario())


def test_a_passing_failure_is_tried_again_with_pauses_and_the_old_revision_answers() -> None:
    async def scenario() -> None:
        world = World()
        flaky = LoadError(Reason.LOAD_FAILED, "no luck", final=False)
        world.engines.load_errors["file:v2"] = [flaky] * 2
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped()))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            assert not blocked.final
            assert blocked.message == "no luck; the engine's last words: the last thing it said"
            assert blocked.swap is not None
            assert blocked.swap.log == ("the last thing it said",)
            assert (await answer(pool))[0].text == "file:v1:1 "
            await until(pool, serves("file:v2"))
            assert len(world.engines.made) == 4

    in_virtual_time(scenario())


def test_defaults_limits_and_rollout_change_without_a_reload() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            limits = ServingLimits(
                max_queue=3, defaults=SamplingDefaults(temperature="0.1", max_tokens=5)
            )
            changed = swapped("file:v1", limits=limits, strategy="DrainThenLoad", drainSeconds=1)
            await pool.apply(world.document(changed))
            await asyncio.sleep(60)
            report = pool.report().model("chat")
            assert report is not None
            assert report.transition is Transition.UP_TO_DATE
            assert len(world.engines.made) == 1

    in_virtual_time(scenario())


def test_each_step_is_journalled_before_it_is_taken() -> None:
    async def scenario() -> None:
        world = World()
        journal = MemoryJournal()
        async with world.pool(journal) as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(strategy="DrainThenLoad")))
            await until(pool, serves("file:v2"))
        marks = [mark.value for _, mark, _ in journal.steps]
        first = ["Fetching", "Loading", "Checking", "Committed"]
        assert marks == [*first, "Fetching", "Draining", *first[1:]]

    in_virtual_time(scenario())


def test_a_process_that_ended_in_a_swap_begins_with_what_was_committed() -> None:
    async def scenario() -> None:
        world = World()
        journal = MemoryJournal()
        async with world.pool(journal) as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            world.engines.load_seconds = 1000
            await pool.apply(world.document(swapped()))
            await asyncio.sleep(10)
        world.engines.load_seconds = 1
        async with world.pool(journal) as pool:
            await pool.apply(world.document(swapped()))
            first = await until(pool, lambda m: m.active is not None)
            assert serves("file:v1")(first)
            assert first.transition is Transition.IN_PROGRESS
            await until(pool, serves("file:v2"))
            made = len(world.engines.made)
        async with world.pool(journal) as pool:
            await pool.apply(world.document(swapped()))
            await until(pool, serves("file:v2"))
            assert len(world.engines.made) == made + 1, "what is committed comes first, and alone"

    in_virtual_time(scenario())


def test_what_comes_back_need_not_answer_the_prompts_of_a_newer_spec() -> None:
    async def scenario() -> None:
        world = World()
        prompts = [{"prompt": "Who are you?", "expect": {"contains": "file:v3"}}]
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            new = swapped(strategy="DrainThenLoad", validation=prompts)
            await pool.apply(world.document(new))
            back = await until(pool, lambda m: m.final and m.active is not None)
            assert serves("file:v1")(back)
            assert back.reason is Reason.VALIDATION_FAILED

    in_virtual_time(scenario())


INVALID = LoadError(Reason.INVALID_MODEL, "the file is cut short", final=True)


async def blocked(world: World, journal: MemoryJournal, uid: str = "u1") -> ReportedModel:
    """Have a swap to `file:v2` fail, and return what was shown of it before the process ended."""
    world.engines.load_errors["file:v2"] = [INVALID]
    async with world.pool(journal) as pool:
        await pool.apply(world.document(wanted(uid=uid)))
        await until(pool, lambda m: m.reason is Reason.SERVING)
        await pool.apply(world.document(wanted(uri="file:v2", generation=2, uid=uid)))
        return await until(pool, lambda m: m.final and is_over(m))


def test_a_restart_knows_what_failed_and_does_not_try_it_again() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        before = await blocked(world, journal)
        for _ in range(2):
            tried = len(world.engines.made)
            async with world.pool(journal) as pool:
                await pool.apply(world.document(swapped()))
                after = await until(pool, lambda m: m.active is not None and m.final)
                assert after == before.model_copy(update={"active": after.active})
                await asyncio.sleep(600)
                assert [e.path for e in world.engines.made[tried:]] == ["file:v1"]

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("uid", "generation", "percent"), [("u1", 3, 100), ("u1", 2, 90), ("", 2, 100)]
)
def test_a_restart_tries_again_what_is_asked_for_anew_or_by_nobody_known(
    uid: str, generation: int, percent: int
) -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        await blocked(world, journal, uid)
        async with world.pool(journal) as pool:
            again = wanted(uri="file:v2", generation=generation, uid=uid)
            await pool.apply(world.document(again, percent=percent))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def test_a_failure_is_forgotten_once_the_target_is_tried_anew() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        await blocked(world, journal)
        async with world.pool(journal) as pool:
            await pool.apply(world.document(swapped()))
            await until(pool, lambda m: m.active is not None and m.final)
            await pool.apply(world.document(swapped("file:v1")))
            await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            world.engines.load_seconds = 1000
            await pool.apply(world.document(swapped()))
            await asyncio.sleep(10)
        world.engines.load_seconds = 1
        async with world.pool(journal) as pool:
            await pool.apply(world.document(swapped()))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def test_what_can_never_fit_is_found_out_anew_after_a_restart() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        world.engines.footprints["file:v2"] = Footprint(weights=2000 * MIB)
        async with world.pool(journal) as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped()))
            await until(pool, lambda m: m.final)
        world.device.size = 4000 * MIB
        async with world.pool(journal) as pool:
            await pool.apply(world.document(swapped()))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def late(model: DesiredModel, *, last_good: str | None = None) -> DesiredModel:
    """Return a wish for a pod whose turn has not come."""
    good = None if last_good is None else DesiredRevision(uri=last_good)
    return model.model_copy(update={"waiting": (0,), "last_good": good})


def test_a_pod_whose_turn_has_not_come_goes_on_answering_and_says_so() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(late(swapped())))
            waits = await until(pool, lambda m: m.reason is Reason.ROLLING_OUT)
            assert "answers until the next one has shown itself on another pod" in waits.message
            assert (waits.generation, waits.transition) == (2, Transition.IN_PROGRESS)
            await asyncio.sleep(600)
            assert (await answer(pool))[0].text == "file:v1:1 "
            assert [e.path for e in world.engines.alive] == ["file:v1"]
            await pool.apply(world.document(swapped()))
            done = await until(pool, lambda m: m.reason is Reason.SERVING)
            assert done.transition is Transition.UP_TO_DATE
            assert (await answer(pool))[0].text == "file:v2:1 "

    in_virtual_time(scenario())


def test_a_new_pod_whose_turn_has_not_come_serves_what_was_good_last() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(late(swapped(), last_good="file:v1")))
            await until(pool, serves("file:v1"))
            assert (await answer(pool))[0].text == "file:v1:1 "
            await pool.apply(world.document(swapped()))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())


def test_a_pod_whose_turn_has_not_come_stops_loading_what_it_was_asked_for_before() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            world.engines.load_seconds = 100
            await pool.apply(world.document(swapped()))
            await until(pool, lambda m: m.swap is not None and m.swap.step is SwapStep.LOADING)
            await pool.apply(world.document(late(swapped("file:v3", generation=3))))
            await until(pool, lambda m: m.reason is Reason.ROLLING_OUT)
            assert [e.path for e in world.engines.alive] == ["file:v1"]

    in_virtual_time(scenario())


def test_a_model_that_sleeps_is_not_woken_before_its_turn() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            idle = ResidencySettings(unload_seconds=10)
            await pool.apply(world.document(wanted(residency=idle)))
            await until(pool, lambda m: m.reason is Reason.IDLE)
            newer = swapped().model_copy(update={"residency": idle})
            await pool.apply(world.document(late(newer)))
            await asyncio.sleep(600)
            assert not world.engines.alive
            assert (await answer(pool))[0].text == "file:v1:1 "
            await pool.apply(world.document(newer))
            await until(pool, serves("file:v2"))

    in_virtual_time(scenario())
