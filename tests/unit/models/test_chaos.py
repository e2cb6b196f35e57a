"""Whatever happens to a pool, in any order, nothing is leaked; in virtual time."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_models import MIB, World, answer, wanted
from tests.support.virtual_time import in_virtual_time
from ullage_api.conditions import Reason
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.errors import LoadError, ServingError
from ullage_runtime.models.pool import ModelPool

NAMES = ("a", "b", "c")
URIS = ("file:v1", "file:v2", "file:large", "file:broken", "file:gone")

EVENTS = st.one_of(
    st.tuples(st.just("want"), st.sampled_from(NAMES), st.sampled_from(URIS)),
    st.tuples(st.just("suspend"), st.sampled_from(NAMES)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("die"), st.integers(0, 5)),
    st.tuples(st.just("ask"), st.sampled_from(NAMES)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 2.0, 90.0])),
)


class Chaos:
    """Does what it is told to a pool that is too small for what is asked of it."""

    def __init__(self) -> None:
        self.world = World()
        self.world.device.size = 250 * MIB
        self.world.engines.resident = 100 * MIB
        self.world.engines.footprints["file:large"] = Footprint(weights=200 * MIB)
        broken = LoadError(Reason.LOAD_FAILED, "no luck", final=False)
        self.world.engines.load_errors["file:broken"] = [broken] * 1000
        self.world.source.files["file:gone"] = LoadError(
            Reason.SOURCE_UNAVAILABLE, "404", final=True
        )
        self.models: dict[str, DesiredModel] = {}
        self.requests: list[asyncio.Task[object]] = []

    async def play(self, pool: ModelPool, event: tuple[object, ...]) -> None:
        match event:
            case ("want", str(name), str(uri)):
                await self._apply(pool, name, wanted(name, uri, uid=name))
            case ("suspend", str(name)) if name in self.models:
                await self._apply(pool, name, wanted(name, suspended=True, uid=name))
            case ("remove", str(name)):
                await self._apply(pool, name, None)
            case ("die", int(number)) if self.world.engines.alive:
                alive = self.world.engines.alive
                alive[number % len(alive)].die()
            case ("ask", str(name)) if name in self.models:
                self.requests.append(asyncio.create_task(self._ask(pool, name)))
            case ("leave", int(number)) if self.requests:
                self.requests[number % len(self.requests)].cancel()
            case ("wait", float(seconds)):
                await asyncio.sleep(seconds)
            case _:
                pass  # it means nothing as things are

    async def between_attempts(self) -> None:
        """Wait for a moment in which nothing that failed is being tried again."""
        async with asyncio.timeout(30):
            while not all(e.is_loaded for e in self.world.engines.alive):  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.1)

    async def _apply(self, pool: ModelPool, name: str, model: DesiredModel | None) -> None:
        if model is None:
            self.models.pop(name, None)
        else:
            self.models[name] = model
        assert await pool.apply(self.world.document(*self.models.values()))

    @staticmethod
    async def _ask(pool: ModelPool, name: str) -> object:
        try:
            return await answer(pool, name)
        except ServingError as error:
            return error


@settings(max_examples=150, deadline=None)
@given(events=st.lists(EVENTS, max_size=30))
def test_any_course_of_events_ends_with_everything_given_back(
    events: list[tuple[object, ...]],
) -> None:
    async def scenario() -> None:
        chaos = Chaos()
        pool = chaos.world.pool()
        await pool.start()
        for event in events:
            await chaos.play(pool, event)
        await asyncio.sleep(1200)
        outcomes = await asyncio.gather(*chaos.requests, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, (list, ServingError, asyncio.CancelledError)), outcome
        await chaos.between_attempts()
        loaded = chaos.world.engines.alive
        assert pool.report().devices[0].ledger_bytes == 100 * MIB * len(loaded)
        report = {model.name: model for model in pool.report().models}
        assert set(report) == set(chaos.models)
        for model in report.values():
            assert model.requests_running == model.requests_waiting == 0
        await pool.close(1)
        assert not chaos.world.engines.alive
        assert pool.report().devices[0].ledger_bytes == 0

    in_virtual_time(scenario())
