"""Whatever happens in whatever order: nobody starves, nothing leaks, no text changes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.fake_context import Bench, FakeContext, answer, written_alone
from ullage_runtime.core.scheduling.scheduler import HELD_STEPS
from ullage_runtime.core.scheduling.sequence import Phase
from ullage_runtime.core.scheduling.sequence import Sequence as Generation

CELLS = 96

beginnings = st.sampled_from([[1] * 40, [1] * 35 + [2] * 5, [3] * 33, []])
tails = st.lists(st.integers(0, 3), min_size=1, max_size=40)


class AnyOrder(RuleBasedStateMachine):
    """Submits, steps, cancels, breaks and forgets in any order on a context that is too small."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(FakeContext(CELLS, slots=6, batch=16), parallel=3)
        self.live: list[Generation] = []

    @rule(
        beginning=beginnings,
        tail=tails,
        length=st.integers(1, 15),
        tenant=st.sampled_from("ab"),
        adapter=st.sampled_from(["", "", "tone", "style"]),
        priority=st.integers(-1, 1),
    )
    def submit(
        self,
        beginning: list[int],
        tail: list[int],
        length: int,
        tenant: str,
        adapter: str,
        priority: int,
    ) -> None:
        self.live.append(
            self.bench.submit(
                [*beginning, *tail], length, tenant=tenant, adapter=adapter, priority=priority
            )
        )

    @rule(count=st.integers(1, 8))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        """Step; whoever generates has a token, or lets a few steps pass after its first."""
        running = (s for s in self.live if s.phase is Phase.RUNNING)
        generating = [(s, len(s.tokens)) for s in running if s.is_decoding]
        self.bench.step()
        for sequence, length in generating:
            turn = sequence.adapter == self.bench.context.decoded[-1][0].adapter
            if len(sequence.tokens) > length or sequence.phase is Phase.PREEMPTED or not turn:
                continue
            assert len(answer(sequence)) == 1
            assert self.bench.scheduler.counters.steps - sequence.since <= HELD_STEPS + 1

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        self.live.remove(sequence)
        self.bench.scheduler.finish(sequence)

    @rule()
    def forget(self) -> None:
        self.bench.forget()

    @rule()
    def unusable(self) -> None:
        self.bench.context.fragmented = 5 - self.bench.context.fragmented

    @invariant()
    def the_account_is_right(self) -> None:
        self.bench.check()

    @invariant()
    def what_is_written_is_what_is_written_alone(self) -> None:
        for sequence in self.live:
            prompt = sequence.tokens[: sequence.prompt_length]
            assert answer(sequence) == written_alone(
                prompt, len(answer(sequence)), sequence.adapter
            )

    def teardown(self) -> None:
        self.bench.context.fragmented = 0
        self.bench.run()
        assert all(s.phase is Phase.OVER and len(s.tokens) == s.limit for s in self.live)
        self.bench.forget()
        assert self.bench.context.used == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


ADAPTERS = ["", "tone", "style"]


@given(
    prompts=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 35), st.sampled_from(ADAPTERS)),
        min_size=2,
        max_size=12,
    ),
    saves=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_nobody_starves_while_others_keep_coming(
    prompts: list[tuple[int, int, str]], *, saves: bool
) -> None:
    bench = Bench(FakeContext(CELLS, slots=8, batch=16, saves=saves), parallel=3)
    first = [
        bench.submit([n] * size, length, adapter=adapter)
        for n, (size, length, adapter) in enumerate(prompts)
    ]
    for late in range(4000):
        if all(s.phase is Phase.OVER for s in first):
            break
        if bench.scheduler.waiting < 20:
            bench.submit([late % 50], 3, priority=late % 2, adapter=ADAPTERS[late % 3])
        bench.step()
    assert all(s.phase is Phase.OVER for s in first)
