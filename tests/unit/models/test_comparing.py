"""A new revision beside the one that answers: shares, verdicts, and the way back."""

import asyncio
import re
from collections import Counter
from typing import Any

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.rollouts import serves, step, swapped
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import SwapStep, Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_runtime.core.domain import GenerateRequest, Sampling
from ullage_runtime.core.errors import EngineFailed, ServingError
from ullage_runtime.models.journal import MemoryJournal
from ullage_runtime.models.pool import ModelPool

CANARY = {
    "steps": [{"weight": 10, "seconds": 60}, {"weight": 50, "seconds": 60}],
    "maxErrorPercent": 1,
    "maxLatencyRatioPercent": 150,
}


class Traffic:
    """A request every tenth of a second, and which revision answered each."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._ask())
                await asyncio.sleep(0.1)

    async def _ask(self) -> None:
        request = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=1))
        try:
            chunks = await answer(self._pool, request=request)
        except ServingError as error:
            self.failed[error.code] += 1
        else:
            self.answered[chunks[0].text.rpartition(":")[0]] += 1


async def compared(
    world: World, pool: ModelPool, *, slow: float = 1, broken: bool = False
) -> Traffic:
    """Have v1 answer and v2 be compared with it under traffic."""
    world.engines.sequences = 8
    world.engines.slowness["file:v2"] = slow
    await pool.apply(world.document(wanted()))
    await until(pool, lambda m: m.reason is Reason.SERVING)
    traffic = Traffic(pool)
    await asyncio.sleep(10)
    await pool.apply(world.document(swapped(canary=CANARY)))
    await until(pool, step(SwapStep.CANARY))
    if broken:
        world.engines.broken.add("file:v2")
    return traffic


def test_a_good_canary_gets_its_shares_and_is_promoted() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        async with world.pool(journal) as pool:
            traffic = await compared(world, pool)
            under_way = await until(pool, step(SwapStep.CANARY))
            assert under_way.transition is Transition.IN_PROGRESS
            assert under_way.reason is Reason.ROLLING_OUT
            assert "gets 10 % of the requests for 60 s" in under_way.message
            assert serves("file:v1")(under_way)
            traffic.answered.clear()
            await asyncio.sleep(50)
            share = traffic.answered["file:v2"] / traffic.answered.total()
            assert 0.09 <= share <= 0.11
            report = pool.report().model("chat")
            assert report is not None
            assert report.swap is not None
            older, newer = report.swap.arms
            assert (older.weight, newer.weight) == (90, 10)
            assert newer.revision == report.swap.target
            assert (older.errors, newer.errors) == (0, 0)
            assert 90 <= newer.token_milliseconds <= 110  # type: ignore[operator]
            done = await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            assert serves("file:v2")(done)
            await traffic.stop()
            assert not traffic.failed
        details = [detail for _, mark, detail in journal.steps if mark is SwapStep.CANARY]
        assert details == ["10 %", "50 %"]

    in_virtual_time(scenario())


def test_a_report_that_has_the_words_of_a_share_has_the_share() -> None:
    async def scenario() -> None:
        world = World()
        weights: dict[str, int] = {}

        def is_over(model: ReportedModel) -> bool:
            told = re.search(r"gets \d+ % of|is watched", model.message)
            if told is not None and told[0] not in weights:
                assert model.swap is not None
                weights[told[0]] = model.swap.arms[-1].weight if model.swap.arms else -1
            return model.transition is Transition.UP_TO_DATE and "gets 50 % of" in weights

        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(canary=CANARY, watchSeconds=60)))
            await until(pool, is_over)
        assert weights == {"gets 10 % of": 10, "gets 50 % of": 50, "is watched": 100}

    in_virtual_time(scenario())


def test_a_slower_canary_is_taken_back_by_itself_and_stays_so_until_the_spec_changes() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            traffic = await compared(world, pool, slow=2)
            back = await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert (back.reason, back.final) == (Reason.ROLLED_BACK, True)
            assert "200 % of the 100.00 ms before, and 150 % are allowed" in back.message
            assert serves("file:v1")(back)
            await asyncio.sleep(1000)
            assert [e.path for e in world.engines.alive] == ["file:v1"]
            world.engines.slowness.clear()
            await pool.apply(world.document(swapped(generation=3, canary=CANARY)))
            await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            await traffic.stop()
            assert not traffic.failed

    in_virtual_time(scenario())


def test_a_failing_canary_is_taken_back_by_itself() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            traffic = await compared(world, pool, broken=True)
            back = await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert "5 of its 5 requests failed (100.0 %), 1.0 % are allowed" in back.message
            await asyncio.sleep(30)
            await traffic.stop()
            assert 5 <= traffic.failed.total() <= 10
            assert [e.path for e in world.engines.alive] == ["file:v1"]

    in_virtual_time(scenario())


def test_a_canary_whose_engine_dies_is_taken_back() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            traffic = await compared(world, pool)
            world.engines.alive[-1].die()
            back = await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert "SIGKILL" in back.message
            assert back.restarts == 0
            await traffic.stop()

    in_virtual_time(scenario())


def test_an_old_revision_that_dies_beside_its_canary_comes_back_before_the_swap_goes_on() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            traffic = await compared(world, pool)
            world.engines.alive[0].die()
            back = await until(pool, lambda m: m.restarts == 1 and m.active is not None)
            assert serves("file:v1")(back)
            await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            await traffic.stop()
            report = pool.report().model("chat")
            assert report is not None
            assert serves("file:v2")(report)

    in_virtual_time(scenario())


def test_a_step_without_seconds_is_held_open_until_the_spec_changes() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(canary={"steps": [{"weight": 50}]})))
            await until(pool, step(SwapStep.CANARY))
            await asyncio.sleep(2000)
            report = pool.report().model("chat")
            assert report is not None
            assert step(SwapStep.CANARY)(report)
            assert len(world.engines.alive) == 2
            await pool.apply(world.document(swapped(generation=3)))
            await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            assert [e.path for e in world.engines.alive if not e.over.is_set()][-1] == "file:v2"

    in_virtual_time(scenario())


def test_what_dies_while_it_is_watched_hands_over_at_once() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        async with world.pool(journal) as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(watchSeconds=60)))
            watched = await until(pool, step(SwapStep.WATCHING))
            assert watched.transition is Transition.IN_PROGRESS
            assert (await answer(pool))[0].text == "file:v2:1 "
            await asyncio.sleep(30)
            world.engines.alive[-1].die()
            await asyncio.sleep(0)
            assert (await answer(pool))[0].text == "file:v1:1 "
            back = await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert "SIGKILL" in back.message
            assert back.restarts == 0
            await asyncio.sleep(600)
            assert [e.path for e in world.engines.alive] == ["file:v1"]
        assert [mark.value for _, mark, _ in journal.steps][-2:] == ["Watching", "RolledBack"]

    in_virtual_time(scenario())


def test_what_fails_requests_while_it_is_watched_is_taken_back() -> None:
    async def scenario() -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(watchSeconds=60)))
            await until(pool, step(SwapStep.WATCHING))
            world.engines.broken.add("file:v2")
            for _ in range(5):
                try:
                    await answer(pool)
                except EngineFailed:
                    continue
            await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert (await answer(pool))[0].text == "file:v1:1 "

    in_virtual_time(scenario())


def test_what_fails_while_it_is_watched_without_room_for_both_gives_way_to_a_reload() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 150 * MIB
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(watchSeconds=60)))
            await until(pool, step(SwapStep.WATCHING))
            world.engines.alive[-1].die()
            await asyncio.sleep(0)
            assert (await answer(pool))[0].text == "file:v1:1 "
            back = await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            assert back.final

    in_virtual_time(scenario())


def test_a_watch_that_ends_well_commits_and_lets_the_old_revision_go() -> None:
    async def scenario() -> None:
        world, journal = World(), MemoryJournal()
        async with world.pool(journal) as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(watchSeconds=60)))
            await until(pool, step(SwapStep.WATCHING))
            assert len(world.engines.alive) == 2
            await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)
            await asyncio.sleep(1)
            assert [e.path for e in world.engines.alive] == ["file:v2"]
            assert pool.report().devices[0].ledger_bytes == 90 * MIB
        assert journal.steps[-1][1].value == "Committed"

    in_virtual_time(scenario())


def test_what_stands_by_leaves_for_another_model_before_any_that_is_idle() -> None:
    async def scenario(*, fails: bool) -> None:
        world = World()
        world.device.size = 350 * MIB
        async with world.pool() as pool:
            idle = wanted("idle", "file:idle", uid="u2")
            await pool.apply(world.document(wanted(), idle))
            for name in ("chat", "idle"):
                await until(pool, lambda m: m.reason is Reason.SERVING, name)
            watched = swapped(watchSeconds=60)
            await pool.apply(world.document(watched, idle))
            await until(pool, step(SwapStep.WATCHING))
            assert len(world.engines.alive) == 3
            await asyncio.sleep(10)
            other = wanted("other", "file:other", uid="u3")
            await pool.apply(world.document(watched, idle, other))
            await until(pool, lambda m: m.reason is Reason.SERVING, "other")
            alive = {engine.path for engine in world.engines.alive}
            assert alive == {"file:v2", "file:idle", "file:other"}
            told = pool.decisions()[0]
            assert (told.model, told.rule.value, told.beneficiary) == ("chat", "Demand", "other")
            assert "stands by no more" in told.message
            if fails:
                next(e for e in world.engines.alive if e.path == "file:v2").die()
                await asyncio.sleep(0)
                assert (await answer(pool))[0].text == "file:v1:1 "
                await until(pool, lambda m: m.transition is Transition.ROLLED_BACK)
            else:
                await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)

    in_virtual_time(scenario(fails=False))
    in_virtual_time(scenario(fails=True))


def test_what_stands_by_finishes_its_requests_before_it_leaves_for_anybody() -> None:
    async def scenario() -> None:
        world = World()
        world.device.size = 250 * MIB
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            long = GenerateRequest("r", prompt="hi", sampling=Sampling(max_tokens=150))
            stream = asyncio.create_task(answer(pool, request=long))
            await asyncio.sleep(0.1)
            watched = swapped(watchSeconds=60)
            await pool.apply(world.document(watched))
            await until(pool, step(SwapStep.WATCHING))
            other = wanted("other", "file:other", uid="u3")
            await pool.apply(world.document(watched, other))
            await until(pool, lambda m: m.reason is Reason.SERVING, "other")
            assert len(await stream) == 150
            assert {engine.path for engine in world.engines.alive} == {"file:v2", "file:other"}

    in_virtual_time(scenario())


def test_a_newer_spec_ends_a_comparison_and_a_watch() -> None:
    async def scenario(wait_for: SwapStep, **rollout: Any) -> None:
        world = World()
        async with world.pool() as pool:
            await pool.apply(world.document(wanted()))
            await until(pool, lambda m: m.reason is Reason.SERVING)
            await pool.apply(world.document(swapped(**rollout)))
            await until(pool, step(wait_for))
            await pool.apply(world.document(wanted(uri="file:v3", generation=3)))
            await until(pool, serves("file:v3"))
            await asyncio.sleep(2)
            assert [e.path for e in world.engines.alive] == ["file:v3"]
            assert pool.report().devices[0].ledger_bytes == 90 * MIB

    in_virtual_time(scenario(SwapStep.CANARY, canary=CANARY))
    in_virtual_time(scenario(SwapStep.WATCHING, watchSeconds=60))
