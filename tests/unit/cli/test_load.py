"""The load generator's arithmetic: what is asked, when, and what is made of the answers."""

import asyncio
import itertools
import random
import statistics
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.virtual_time import in_virtual_time
from ullage_runtime.cli.load.driver import Extent, at_once, at_rate
from ullage_runtime.cli.load.outcome import Outcome, percentile, summary
from ullage_runtime.cli.load.workload import Arrivals, Ask, Workload, parsed_lengths, starts


def workload(seed: str = "0", prompt: str = "16", output: str = "8", **given: object) -> Workload:
    lengths = (parsed_lengths(prompt), parsed_lengths(output))
    return Workload(seed, *lengths, **given)  # type: ignore[arg-type]


def drawn(text: str, count: int = 4000) -> list[int]:
    lengths, chance = parsed_lengths(text), random.Random("lengths")  # noqa: S311 - a fixed seed
    return [lengths.draw(chance) for _ in range(count)]


def test_lengths_lie_as_their_distribution_says() -> None:
    assert set(drawn("7", 10)) == {7}
    even = drawn("uniform:10:20")
    assert (min(even), max(even)) == (10, 20)
    assert statistics.mean(even) == pytest.approx(15, abs=0.3)
    skewed = drawn("lognormal:100:0.5")
    assert statistics.median(skewed) == pytest.approx(100, rel=0.05)
    assert statistics.mean(skewed) == pytest.approx(100 * 2.718281828**0.125, rel=0.05)


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "-1", "1.5", "uniform:5:2", "uniform:5", "lognormal:1:9", "normal:1:2", "1:2"],
)
def test_a_length_that_is_none_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="give 128, uniform:16:256 or lognormal"):
        parsed_lengths(text)


def test_the_same_seed_asks_the_same_and_another_asks_something_else() -> None:
    asks = [[workload(seed).ask(index) for index in range(5)] for seed in ("a", "a", "b")]
    assert asks[0] == asks[1]
    assert asks[0] != asks[2]
    assert len({ask.prompt for ask in asks[0]}) == 5


@given(st.integers(1, 300), st.floats(0.5, 8), st.integers(0, 100))
def test_a_made_up_prompt_has_the_length_that_was_asked_for(
    tokens: int, characters: float, shared: int
) -> None:
    made = workload(prompt=str(tokens), characters_per_token=characters, shared_prefix=shared)
    first, second = made.ask(0).prompt, made.ask(1).prompt
    prefix = round(shared * characters)
    assert len(first) == prefix + max(1, round(tokens * characters))
    assert first[:prefix] == second[:prefix]


def test_given_prompts_are_taken_in_turn() -> None:
    given_ones = workload(prompts=("one", "two"))
    assert [given_ones.ask(index).prompt for index in range(3)] == ["one", "two", "one"]


def test_arrivals_come_at_their_rate() -> None:
    assert list(itertools.islice(starts(4, Arrivals.FIXED, "s"), 4)) == [0, 0.25, 0.5, 0.75]
    times = list(itertools.islice(starts(4, Arrivals.POISSON, "s"), 4000))
    gaps = [b - a for a, b in itertools.pairwise([0.0, *times])]
    assert statistics.mean(gaps) == pytest.approx(0.25, rel=0.05)
    # What distinguishes an exponential distribution: it deviates by as much as its mean.
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.1)
    assert times == list(itertools.islice(starts(4, Arrivals.POISSON, "s"), 4000))


@dataclass
class Server:
    """Takes so long for each request, one after the other, in virtual time."""

    seconds: float = 1.0
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    parallel: bool = False
    running: int = 0
    most: int = 0
    failure: str | None = None

    async def ask(self, ask: Ask, intended: float) -> Outcome:
        loop = asyncio.get_running_loop()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.parallel:
                await asyncio.sleep(self.seconds)
            else:
                async with self.busy:
                    await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        return Outcome(intended, loop.time(), (loop.time(),), failure=self.failure)


def at_once_here(server: Server, extent: Extent, concurrency: int) -> list[Outcome]:
    async def run() -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        return await at_once(server, workload(), extent, concurrency, clock=clock)

    return in_virtual_time(run())


def at_rate_here(server: Server, extent: Extent, rate: float, bound: int = 99) -> list[Outcome]:
    async def run() -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        due = starts(rate, Arrivals.FIXED, "s")
        return await at_rate(server, workload(), extent, due, bound, clock=clock)

    return in_virtual_time(run())


def test_so_many_requests_are_under_way_and_no_more() -> None:
    server = Server(parallel=True)
    outcomes = at_once_here(server, Extent(requests=10), 4)
    assert (len(outcomes), server.most) == (10, 4)
    assert summary(outcomes).seconds == pytest.approx(3)


def test_a_duration_starts_no_request_after_it_and_waits_for_those_under_way() -> None:
    outcomes = at_once_here(Server(0.4, parallel=True), Extent(seconds=1), 2)
    assert len(outcomes) == 6
    assert max(o.ended for o in outcomes) == pytest.approx(1.2)


def test_refusals_do_not_become_a_busy_loop() -> None:
    server = Server(0.0, parallel=True, failure="429 overloaded")
    assert 8 <= len(at_once_here(server, Extent(seconds=1), 1)) <= 11


def test_requests_at_a_rate_are_due_whether_or_not_the_server_keeps_up() -> None:
    # One a second is answered and two are due: the n-th waits for n - 1 before it.
    outcomes = at_rate_here(Server(1.0), Extent(requests=6), 2)
    waited = [o.first_token_seconds for o in outcomes]
    assert waited == pytest.approx([1, 1.5, 2, 2.5, 3, 3.5])


def test_waiting_for_room_counts_as_waiting() -> None:
    # Coordinated omission would make each of them look as if it had taken one second.
    server = Server(1.0)
    outcomes = at_rate_here(server, Extent(requests=6), 2, bound=1)
    assert server.most == 1
    assert [o.first_token_seconds for o in outcomes] == pytest.approx([1, 1.5, 2, 2.5, 3, 3.5])


def test_a_rate_lasts_as_long_as_it_should() -> None:
    assert len(at_rate_here(Server(parallel=True), Extent(seconds=3), 4)) == 12


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 100))
def test_a_percentile_lies_within_the_values(values: list[float], percent: float) -> None:
    values.sort()
    assert values[0] - 1e-9 <= percentile(values, percent) <= values[-1] + 1e-9
    assert percentile(values, 0) == values[0]
    assert percentile(values, 100) == values[-1]


def test_a_summary_counts_what_was_answered_and_names_what_was_not() -> None:
    good = Outcome(10.0, 12.0, (10.5, 11.0, 12.0), prompt_tokens=7, output_tokens=3)
    bad = Outcome(11.0, 14.0, (11.5,), output_tokens=1, failure="503 model_loading")
    found = summary([good, bad, bad])
    assert (found.seconds, found.requests, found.completed) == (4.0, 3, 1)
    assert found.failures == {"503 model_loading": 2}
    assert found.tokens_per_second == 0.75
    assert (found.first_token.p50, found.inter_token.p50) == (0.5, 0.75)
    assert found.to_wire()["requestSeconds"]["max"] == 2.0


def test_a_summary_of_nothing_says_nothing() -> None:
    found = summary([])
    assert (found.tokens_per_second, found.first_token.p95) == (0.0, None)
