"""What the scheduler promises, on a context of plain Python."""

import pytest

from tests.support.fake_context import Bench, FakeContext, answer, written_alone
from ullage_runtime.core.errors import Overloaded
from ullage_runtime.core.scheduling.pace import ALONE_EVERY, QUICK_SECONDS, READERS
from ullage_runtime.core.scheduling.portions import SCORED_TOKENS
from ullage_runtime.core.scheduling.scheduler import HELD_STEPS
from ullage_runtime.core.scheduling.sequence import AGE_SECONDS, Phase


def prompt(length: int, first: int = 1) -> list[int]:
    return [(first * 1000 + index) % 997 for index in range(length)]


def test_sequences_run_together_and_write_what_they_write_alone() -> None:
    bench = Bench()
    sequences = [bench.submit(prompt(10, n), 6) for n in range(4)]
    bench.run()
    assert [answer(s) for s in sequences] == [written_alone(prompt(10, n), 6) for n in range(4)]
    assert bench.scheduler.counters.widest == 4


def test_everybody_who_generates_has_a_token_in_every_step() -> None:
    bench = Bench(FakeContext(1024))
    writer = bench.submit(prompt(10), 100)
    bench.run(until=lambda: writer.is_decoding)
    bench.submit(prompt(500, 2), 5)
    while writer.phase is Phase.RUNNING:
        before = len(writer.tokens)
        bench.step()
        assert len(writer.tokens) == before + 1


def test_a_long_prompt_is_taken_in_chunks_that_take_as_long_as_a_step_does() -> None:
    bench = Bench(FakeContext(2048, batch=512))
    writer = bench.submit(prompt(5), 400)
    bench.run(until=lambda: writer.is_decoding)
    bench.scheduler.pace.decode_seconds = {1: 0.00251}
    bench.scheduler.pace.token_seconds = 0.0005
    bench.submit(prompt(900, 2), 5)
    step = bench.scheduler.step(bench.now)
    assert (step.decoded, step.prefilled) == (1, 28)


def test_beside_many_who_generate_a_long_prompt_takes_no_longer_than_their_step() -> None:
    bench = Bench(FakeContext(4096, batch=512), parallel=16)
    writers = [bench.submit(prompt(5, n), 400) for n in range(READERS)]
    bench.run(until=lambda: all(w.is_decoding for w in writers))
    bench.scheduler.pace.decode_seconds = {READERS: 0.0201}
    bench.scheduler.pace.token_seconds = 0.0005
    bench.submit(prompt(900, 100), 5)
    step = bench.scheduler.step(bench.now)
    assert (step.decoded, step.prefilled) == (READERS, 28)


def test_beside_a_long_prompt_those_who_generate_have_a_step_to_themselves_now_and_then() -> None:
    bench = Bench(FakeContext(4096, batch=512), parallel=16)
    writers = [bench.submit(prompt(5, n), 400) for n in range(READERS)]
    bench.run(until=lambda: all(w.is_decoding for w in writers))
    giant = bench.submit(prompt(2000, 100), 5)
    taken = []
    while not giant.is_decoding:
        bench.scheduler.pace.decode_seconds = {READERS: 0.0201}
        bench.scheduler.pace.token_seconds = 0.0005
        step = bench.step()
        assert step.decoded == READERS
        taken.append(step.prefilled)
    assert taken.count(0) == len(taken) // (ALONE_EVERY + 1)
    assert taken.count(0) > 0


def test_quick_prompts_are_taken_at_once_beside_those_who_generate() -> None:
    bench = Bench(FakeContext(4096, batch=512), parallel=16)
    writers = [bench.submit(prompt(5, n), 400) for n in range(READERS)]
    bench.run(until=lambda: all(w.is_decoding for w in writers))
    quick = [bench.submit(prompt(120, 100 + n), 5) for n in range(6)]
    steps = []
    while not all(s.is_decoding for s in quick):
        bench.scheduler.pace.token_seconds = QUICK_SECONDS / 3 / 128
        step = bench.step(seconds=QUICK_SECONDS / 3)
        steps.append((step.decoded, step.prefilled))
    assert all(decoded >= READERS for decoded, _ in steps), "nobody stands still meanwhile"
    assert len(steps) <= 6, "which a step's share for long prompts would not come to"


def test_of_a_burst_nobody_has_a_second_token_before_all_have_their_first() -> None:
    bench = Bench(FakeContext(4096, batch=64), parallel=16)
    burst = [bench.submit(prompt(40, n), 5) for n in range(12)]
    bench.run(until=lambda: any(len(answer(s)) > 1 for s in burst))
    assert all(answer(s) for s in burst)
    bench.run()
    assert [answer(s) for s in burst] == [written_alone(prompt(40, n), 5) for n in range(12)]


def test_of_a_burst_that_takes_long_the_first_go_on_before_it_is_over() -> None:
    bench = Bench(FakeContext(4096, batch=16), parallel=24)
    burst = [bench.submit(prompt(30, n), 40) for n in range(24)]
    first, last = burst[0], burst[-1]
    bench.run(until=lambda: first.is_decoding)
    held = 0
    while len(answer(first)) == 1:
        bench.step()
        held += 1
    assert held == HELD_STEPS + 1
    while not last.is_decoding:
        before = len(first.tokens)
        bench.step()
        assert first.phase is Phase.OVER or len(first.tokens) == before + 1


def test_who_generated_before_a_burst_came_does_not_wait_for_it() -> None:
    bench = Bench(FakeContext(4096, batch=64), parallel=16)
    writers = [bench.submit(prompt(10, n), 200) for n in range(3)]
    bench.run(until=lambda: all(w.is_decoding for w in writers))
    burst = [bench.submit(prompt(40, n), 5) for n in range(10, 22)]
    while not all(s.is_decoding for s in burst):
        before = [len(w.tokens) for w in writers]
        bench.step()
        assert [len(w.tokens) for w in writers] == [length + 1 for length in before]


def test_nobody_waits_for_a_giant_that_came_together_with_it() -> None:
    bench = Bench(FakeContext(4096, batch=64))
    giant = bench.submit(prompt(1500), 5)
    small = bench.submit(prompt(10, 2), 100)
    bench.run(until=lambda: small.is_decoding)
    while not giant.is_decoding:
        before = len(small.tokens)
        bench.step()
        assert len(small.tokens) == before + 1


def test_a_giant_is_passed_by_small_ones_and_is_admitted_all_the_same() -> None:
    bench = Bench(FakeContext(256), parallel=4)
    first = bench.submit(prompt(60), 60)
    bench.step()
    giant = bench.submit(prompt(200, 2), 5)
    small = [bench.submit(prompt(5, n), 3) for n in range(3, 60)]
    bench.run(until=lambda: small[0].phase is Phase.OVER)
    assert giant.phase is Phase.WAITING
    bench.run(until=lambda: giant.phase is not Phase.WAITING)
    assert small[-1].phase is Phase.WAITING, "they do not pass it for ever"
    bench.run()
    assert answer(giant) == written_alone(prompt(200, 2), 5)
    assert answer(first) == written_alone(prompt(60), 60)


def test_short_prompts_do_not_wait_for_a_long_one_that_is_being_taken() -> None:
    bench = Bench(FakeContext(2048, batch=64))
    giant = bench.submit(prompt(1500), 5)
    bench.step()
    small = bench.submit(prompt(40, 2), 1)
    bench.step()
    assert small.phase is Phase.OVER
    assert giant.phase is Phase.RUNNING


def test_who_leaves_its_cells_goes_on_where_it_was() -> None:
    bench = Bench(FakeContext(160), parallel=4)
    sequences = [bench.submit(prompt(20, n), 100) for n in range(4)]
    bench.run()
    assert bench.scheduler.counters.preemptions > 0
    assert sequences[0].preemptions == 0, "the oldest keeps its cells"
    assert [answer(s) for s in sequences] == [written_alone(prompt(20, n), 100) for n in range(4)]


def test_without_saved_states_a_preempted_sequence_is_computed_anew() -> None:
    bench = Bench(FakeContext(160, saves=False), parallel=4)
    sequences = [bench.submit(prompt(20, n), 100) for n in range(4)]
    bench.run()
    assert bench.scheduler.counters.preemptions > 0
    assert [answer(s) for s in sequences] == [written_alone(prompt(20, n), 100) for n in range(4)]


@pytest.mark.parametrize("saves", [True, False])
def test_a_prompt_that_is_scored_leaves_logits_after_each_of_its_tokens(*, saves: bool) -> None:
    bench = Bench(FakeContext(160, saves=saves), parallel=4)
    bench.submit(prompt(40), 5)
    bench.run()
    scored = bench.submit(prompt(40), 60, scores_prompt=True)
    others = [bench.submit(prompt(20, n), 60) for n in range(2, 5)]
    rows: list[int] = []
    while bench.scheduler.busy:
        step = bench.step()
        runs = bench.context.decoded[-1]
        for found in step.scored:
            assert found.sequence is scored
            assert found.count <= SCORED_TOKENS
            (run,) = [run for run in runs if run.wants_all]
            before = runs[: runs.index(run)]
            assert found.row == sum(len(each.tokens) for each in before)
            assert (found.position, found.count) == (run.position, len(run.tokens))
            rows += range(found.position, found.position + found.count)
    assert [row for row in dict.fromkeys(rows) if row < 40] == list(range(40)), "nothing is cached"
    assert bench.scheduler.counters.preemptions > 0
    assert answer(scored) == written_alone(prompt(40), 60)
    assert [answer(s) for s in others] == [written_alone(prompt(20, n), 60) for n in range(2, 5)]


def test_however_many_prompts_are_scored_a_step_has_few_rows_of_logits() -> None:
    bench = Bench(FakeContext(2048, batch=512))
    writer = bench.submit(prompt(5), 200)
    scored = [bench.submit(prompt(50, n), 2, scores_prompt=True) for n in range(3)]
    plain = bench.submit(prompt(300, 9), 2)
    while any(s.phase is not Phase.OVER for s in scored):
        before = len(writer.tokens)
        step = bench.step()
        assert sum(found.count for found in step.scored) <= SCORED_TOKENS + len(scored)
        assert writer.phase is Phase.OVER or len(writer.tokens) == before + 1
    assert plain.phase is Phase.OVER, "it passes them"
    assert [answer(s) for s in scored] == [written_alone(prompt(50, n), 2) for n in range(3)]


def test_the_lowest_priority_leaves_first() -> None:
    bench = Bench(FakeContext(160), parallel=3)
    low = bench.submit(prompt(20, 1), 90, priority=-1)
    high = [bench.submit(prompt(20, n), 90) for n in (2, 3)]
    bench.run(until=lambda: bench.scheduler.counters.preemptions > 0)
    assert low.phase is Phase.PREEMPTED
    assert [s.phase for s in high] == [Phase.RUNNING] * 2
    bench.run()
    assert answer(low) == written_alone(prompt(20, 1), 90)


def test_cells_that_cannot_be_used_cost_a_preemption_and_no_request() -> None:
    context = FakeContext(200)
    context.fragmented = 60
    bench = Bench(context, parallel=4)
    sequences = [bench.submit(prompt(20, n), 60) for n in range(4)]
    bench.run()
    assert [len(answer(s)) for s in sequences] == [60] * 4
    assert bench.scheduler.counters.preemptions > 0


def test_cached_prefixes_go_before_anybody_is_preempted() -> None:
    bench = Bench(FakeContext(280), parallel=2)
    for n in range(3):
        bench.submit(prompt(40, n), 5)
    bench.run()
    assert bench.scheduler.memory.idle == 3
    long = bench.submit(prompt(100, 9), 150)
    bench.run()
    assert answer(long) == written_alone(prompt(100, 9), 150)
    assert bench.scheduler.counters.preemptions == 0


def test_a_prompt_that_begins_alike_shares_cells() -> None:
    bench = Bench()
    bench.submit(prompt(100), 5)
    bench.run()
    second = bench.submit([*prompt(100)[:80], 7, 8, 9], 5)
    step = bench.step()
    assert second.cached == 80
    assert step.prefilled == 3
    bench.run()
    assert answer(second) == written_alone([*prompt(100)[:80], 7, 8, 9], 5)


def test_a_conversation_goes_on_from_its_own_answer() -> None:
    bench = Bench()
    first = bench.submit(prompt(50), 20)
    bench.run()
    longer = [*first.tokens, 1, 2, 3]
    second = bench.submit(longer, 5)
    bench.run()
    assert second.cached == 69, "all but the last token, which was never computed"
    assert bench.scheduler.memory.idle == 1, "the longer one stands for both"


def test_prompts_that_come_together_compute_their_common_beginning_once() -> None:
    bench = Bench(FakeContext(2048))
    common = prompt(300)
    sequences = [bench.submit([*common, n, n + 1], 4) for n in range(4)]
    bench.run()
    assert sequences[0].cached == 0
    assert all(s.cached > 300 - 32 for s in sequences[1:])
    assert bench.scheduler.counters.prompt_tokens < 302 + 3 * 34


def test_tenants_do_not_share_prefixes() -> None:
    bench = Bench()
    bench.submit(prompt(100), 5, tenant="a")
    bench.run()
    other = bench.submit(prompt(100), 5, tenant="b")
    bench.run()
    assert other.cached == 0


def test_a_context_that_cannot_share_is_never_asked_to() -> None:
    bench = Bench(FakeContext(shares_prefixes=False))
    for _ in range(3):
        assert bench.submit(prompt(100), 5).cached == 0
        bench.run()
    assert bench.scheduler.memory.idle == 0
    assert bench.context.used == 0


def test_cached_prefixes_never_hold_more_than_their_share() -> None:
    bench = Bench(FakeContext(400))
    for n in range(20):
        bench.submit(prompt(40, n), 2)
    bench.run()
    assert 150 < bench.context.used <= 200


def test_of_a_giant_as_much_is_kept_as_may_be() -> None:
    bench = Bench(FakeContext(400))
    bench.submit(prompt(300), 2)
    bench.run()
    assert bench.context.used == 200
    again = bench.submit(prompt(300), 2)
    bench.run()
    assert again.cached == 200
    assert answer(again) == written_alone(prompt(300), 2)


def test_the_cached_prefix_that_was_unused_for_longest_goes_first() -> None:
    bench = Bench(FakeContext(400))

    def cached(number: int) -> int:
        sequence = bench.submit(prompt(40, number), 2)
        bench.run()
        return sequence.cached

    # There is room for four of them, with two tokens of each answer.
    assert [cached(n) for n in (1, 2, 3, 4, 1, 5)] == [0, 0, 0, 0, 39, 0]
    assert [cached(n) for n in (1, 3, 4, 5)] == [39] * 4
    assert cached(2) == 0


def test_a_tenant_with_many_requests_does_not_hold_up_one_with_few() -> None:
    bench = Bench(parallel=1)
    many = [bench.submit(prompt(10, n), 5, tenant="many") for n in range(20)]
    bench.step()
    few = bench.submit(prompt(10, 99), 5, tenant="few")
    bench.run(until=lambda: few.phase is Phase.OVER)
    assert sum(s.phase is Phase.OVER for s in many) <= 2


def test_priority_goes_first_and_age_makes_up_for_it() -> None:
    bench = Bench(parallel=1)
    running = bench.submit(prompt(10), 20)
    bench.step()
    low = bench.submit(prompt(10, 2), 1, priority=-1)
    bench.now += 2 * AGE_SECONDS + 1
    high = bench.submit(prompt(10, 3), 1)
    higher = bench.submit(prompt(10, 4), 1, priority=5)
    bench.run()
    assert bench.ended == [running.id, higher.id, low.id, high.id]


def test_who_was_preempted_goes_on_after_those_of_a_higher_priority() -> None:
    bench = Bench(FakeContext(160), parallel=4)
    low = [bench.submit(prompt(20, n), 100, priority=-1) for n in range(4)]
    bench.run(until=lambda: any(s.phase is Phase.PREEMPTED for s in low))
    late = [bench.submit(prompt(5, n), 3) for n in range(10, 16)]
    bench.run()
    assert {int(name) for name in bench.ended[:6]} == {int(s.id) for s in late}
    assert [answer(s) for s in low] == [written_alone(prompt(20, n), 100) for n in range(4)]


def test_who_was_preempted_goes_on_before_others_of_its_priority_begin() -> None:
    bench = Bench(FakeContext(160), parallel=4)
    first = [bench.submit(prompt(20, n), 100) for n in range(4)]
    bench.run(until=lambda: any(s.phase is Phase.PREEMPTED for s in first))
    late = bench.submit(prompt(5, 10), 3)
    preempted = [s for s in first if s.phase is Phase.PREEMPTED]
    bench.run(until=lambda: late.phase is not Phase.WAITING)
    assert all(s.phase is not Phase.PREEMPTED for s in preempted)


def test_who_was_preempted_and_is_old_does_not_wait_for_others_for_ever() -> None:
    bench = Bench(FakeContext(160), parallel=4)
    low = [bench.submit(prompt(20, n), 100, priority=-1) for n in range(4)]
    for late in range(20_000):
        if all(s.phase is Phase.OVER for s in low):
            break
        if bench.scheduler.waiting < 8:
            bench.submit(prompt(5, late), 3)
        bench.step(seconds=0.1)
    assert all(s.phase is Phase.OVER for s in low)
    assert bench.now < 10 * AGE_SECONDS


def test_a_deadline_ends_a_sequence_wherever_it_is() -> None:
    bench = Bench(parallel=1)
    running = bench.submit(prompt(10), 200, deadline=0.05)
    waiting = bench.submit(prompt(10, 2), 5, deadline=0.02)
    expired: list[str] = []
    while bench.scheduler.busy:
        expired += [s.id for s in bench.step().expired]
    assert expired == [waiting.id, running.id]
    assert bench.now < 0.1


def test_the_line_is_bounded() -> None:
    bench = Bench(max_waiting=2)
    bench.submit(prompt(3))
    bench.submit(prompt(3))
    with pytest.raises(Overloaded, match="2 generations already wait") as refused:
        bench.submit(prompt(3))
    assert refused.value.retry_after


def test_a_broken_decode_takes_those_who_run_and_nobody_else() -> None:
    bench = Bench(parallel=2)
    running = [bench.submit(prompt(10, n), 5) for n in range(2)]
    waiting = bench.submit(prompt(10, 7), 5)
    bench.step()
    bench.context.broken = True
    step = bench.scheduler.step(bench.now)
    assert list(step.failed) == running
    bench.run()
    assert answer(waiting) == written_alone(prompt(10, 7), 5)


def test_cells_return_to_what_they_were() -> None:
    bench = Bench(FakeContext(160), parallel=4)
    for n in range(12):
        bench.submit(prompt(20, n), 40)
    bench.run()
    bench.forget()
    assert bench.context.used == bench.scheduler.memory.cells.used == 0
