"""A step computes with one adapter; those who want others wait, and not for long."""

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_context import Bench, FakeContext, answer, written_alone
from ullage_runtime.core.scheduling.sequence import Phase
from ullage_runtime.core.scheduling.sequence import Sequence as Generation
from ullage_runtime.core.scheduling.turns import MOST_WEIGHT, TURN_SECONDS, Turns

STEP = 0.01


def prompt(length: int, first: int = 1) -> list[int]:
    return [(first * 1000 + index) % 997 for index in range(length)]


def check_alone(sequences: Sequence[Generation]) -> None:
    for sequence in sequences:
        begun = sequence.tokens[: sequence.prompt_length]
        assert answer(sequence) == written_alone(begun, len(answer(sequence)), sequence.adapter)


def test_sequences_of_different_adapters_write_what_they_write_alone() -> None:
    bench = Bench(FakeContext(1024), parallel=8)
    sequences = [bench.submit(prompt(10, n), 20, adapter=("", "a", "b")[n % 3]) for n in range(9)]
    bench.run()
    check_alone(sequences)
    # The same prompt means something else to each of them.
    same = [bench.submit(prompt(10), 20, adapter=name) for name in ("", "a")]
    bench.run()
    assert answer(same[0]) != answer(same[1])


def test_those_of_one_adapter_are_computed_together() -> None:
    bench = Bench(FakeContext(1024), parallel=8)
    for n in range(8):
        bench.submit(prompt(10, n), 40, adapter=("a", "b")[n % 2])
    bench.run(until=lambda: all(s.is_decoding for s in bench.scheduler._running.values()))
    before = len(bench.context.decoded)
    for _ in range(20):
        bench.step()
    assert {len(runs) for runs in bench.context.decoded[before:]} == {4}


def test_a_group_goes_on_for_its_turn_and_then_the_other_one_does() -> None:
    bench = Bench(FakeContext(1024), parallel=2)
    for name in ("a", "b"):
        bench.submit(prompt(5), 200, adapter=name)
    for _ in range(60):
        bench.step(STEP)
    computed = [runs[0].adapter for runs in bench.context.decoded][-48:]
    changes = sum(one != other for one, other in itertools.pairwise(computed))
    assert computed.count("a") == computed.count("b")
    assert changes == 48 * STEP / TURN_SECONDS - 1


def test_a_beginning_is_shared_by_those_of_one_adapter_only() -> None:
    bench = Bench(FakeContext(1024, slots=8), parallel=2)
    cached = []
    for name in ("a", "b", "a"):
        last = bench.submit(prompt(100), 5, adapter=name)
        bench.run()
        cached.append(last.cached)
    assert cached == [0, 0, 99]
    other = bench.submit(prompt(100), 5)
    bench.run()
    assert other.cached == 0
    check_alone([last, other])


def test_who_leaves_its_cells_goes_on_with_its_own_adapter() -> None:
    for saves in (True, False):
        bench = Bench(FakeContext(160, saves=saves), parallel=4)
        sequences = [bench.submit(prompt(20, n), 100, adapter="ab"[n % 2]) for n in range(4)]
        bench.run()
        assert bench.scheduler.counters.preemptions > 0
        assert all(s.phase is Phase.OVER for s in sequences)
        check_alone(sequences)


def test_a_prompt_of_one_adapter_holds_those_who_write_with_another_up_no_longer_than_a_step() -> (
    None
):
    bench = Bench(FakeContext(2048, batch=512), parallel=2)
    bench.submit(prompt(5), 400, adapter="a")
    bench.run(until=lambda: bench.scheduler.counters.generated_tokens > 0)
    bench.scheduler.pace.decode_seconds = {1: 0.00251}
    bench.scheduler.pace.token_seconds = 0.0005
    bench.submit(prompt(900, 2), 5, adapter="b")
    chunks = set()
    for _ in range(12):
        step = bench.scheduler.step(bench.now)
        for ready in step.ready:
            bench.scheduler.append(ready.sequence, 1)
        bench.scheduler.observe(step, TURN_SECONDS)
        bench.scheduler.pace.decode_seconds = {1: 0.00251}
        bench.scheduler.pace.token_seconds = 0.0005
        chunks.add(step.prefilled)
    assert chunks == {0, 28}


@given(
    widths=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 32), min_size=2),
    took=st.lists(st.floats(0.0005, 0.3), min_size=1, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_nobody_waits_longer_than_the_turns_of_all_others(
    widths: dict[str, int], took: list[float]
) -> None:
    turns = Turns()
    waited = dict.fromkeys(widths, 0.0)
    longest = TURN_SECONDS + max(took)
    # Between two turns of one group, another one has as many as its weight allows, and one begun.
    bound = (len(widths) - 1) * (MOST_WEIGHT + 1) * 2 * longest
    for step in range(600):
        seconds = took[step % len(took)]
        chosen = turns.choose(widths)
        turns.charge(seconds)
        waited = {group: waited[group] + seconds for group in widths}
        waited[chosen] = 0.0
        assert max(waited.values()) <= bound


def test_a_wide_group_gets_more_turns_than_a_single_one_and_not_all_of_them() -> None:
    turns, spent = Turns(), {"wide": 0.0, "narrow": 0.0}
    for _ in range(10_000):
        spent[turns.choose({"wide": 30, "narrow": 1})] += STEP
        turns.charge(STEP)
    assert 3.8 < spent["wide"] / spent["narrow"] < 4.2


def test_who_comes_late_saved_nothing_up_and_owes_nothing() -> None:
    turns = Turns()
    for _ in range(1000):
        turns.choose({"a": 1})
        turns.charge(1.0)
    order = []
    for _ in range(40):
        order.append(turns.choose({"a": 1, "b": 1}))
        turns.charge(TURN_SECONDS)
    assert order.count("a") == order.count("b") == 20
    for _ in range(40):
        turns.choose({"b": 1})
        turns.charge(1.0)
    order = []
    for _ in range(40):
        order.append(turns.choose({"a": 1, "b": 1}))
        turns.charge(TURN_SECONDS)
    assert order.count("a") == order.count("b") == 20
