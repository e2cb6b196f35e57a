"""The ledger's promises, by example and against an oracle."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from ullage_runtime.core.ledger import (
    Decision,
    EntryState,
    Granted,
    Ledger,
    LedgerError,
    MustWait,
    NeverFits,
)

GIB = 1 << 30


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.set_budget("host", total=10 * GIB, budget=9 * GIB)
    return ledger


def test_what_exceeds_the_whole_budget_never_fits(ledger: Ledger) -> None:
    decision = ledger.reserve("a", ("host",), 9 * GIB + 1)
    assert decision == NeverFits(required=9 * GIB + 1, budget=9 * GIB, total=10 * GIB)
    assert ledger.used("host") == 0


def test_what_fits_only_once_others_leave_must_wait(ledger: Ledger) -> None:
    assert isinstance(ledger.reserve("a", ("host",), 5 * GIB), Granted)
    assert ledger.reserve("b", ("host",), 5 * GIB) == MustWait(5 * GIB, 4 * GIB, 9 * GIB)
    ledger.release("a")
    assert isinstance(ledger.reserve("b", ("host",), 5 * GIB), Granted)


def test_the_actual_size_replaces_the_estimate(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 5 * GIB)
    ledger.commit("a", 3 * GIB)
    assert ledger.free("host") == 6 * GIB


def test_bytes_being_released_still_count(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 5 * GIB)
    ledger.commit("a", 5 * GIB)
    ledger.begin_release("a")
    assert isinstance(ledger.reserve("b", ("host",), 5 * GIB), MustWait)


def test_nothing_is_released_twice(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 1)
    ledger.release("a")
    with pytest.raises(LedgerError):
        ledger.release("a")


def test_an_owner_has_one_entry(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 1)
    with pytest.raises(LedgerError):
        ledger.reserve("a", ("host",), 1)


def test_what_is_being_released_is_not_committed_again(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 1)
    ledger.begin_release("a")
    with pytest.raises(LedgerError):
        ledger.commit("a", 2)
    with pytest.raises(LedgerError):
        ledger.begin_release("a")


def test_what_is_warm_counts_and_is_not_committed_again(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 5 * GIB)
    ledger.keep_warm("a", 4 * GIB)
    assert ledger.used_as("host", EntryState.WARM) == 4 * GIB
    assert ledger.free("host") == 5 * GIB
    with pytest.raises(LedgerError, match="it is warm"):
        ledger.commit("a", 1)
    ledger.begin_release("a")
    with pytest.raises(LedgerError):
        ledger.keep_warm("a", 1)
    assert ledger.release("a") == 4 * GIB


def test_a_load_takes_warm_bytes_over_in_the_same_step(ledger: Ledger) -> None:
    ledger.reserve("warm", ("host",), 4 * GIB)
    ledger.keep_warm("warm", 4 * GIB)
    ledger.reserve("other", ("host",), 3 * GIB)
    assert ledger.reserve("load", ("host",), 7 * GIB, instead_of="warm") == MustWait(
        7 * GIB, 6 * GIB, 9 * GIB
    )
    assert ledger.entry("warm") is not None, "nothing was taken over for nothing"
    assert isinstance(ledger.reserve("load", ("host",), 6 * GIB, instead_of="warm"), Granted)
    assert ledger.entry("warm") is None
    assert ledger.free("host") == 0


def test_only_what_is_warm_can_be_taken_over(ledger: Ledger) -> None:
    ledger.reserve("a", ("host",), 4 * GIB)
    with pytest.raises(LedgerError, match="nothing warm"):
        ledger.reserve("b", ("host",), 1, instead_of="a")
    assert isinstance(ledger.reserve("b", ("host",), 5 * GIB, instead_of="gone"), Granted)


def test_what_neighbours_take_is_not_granted_and_makes_nothing_impossible(ledger: Ledger) -> None:
    ledger.set_left("host", 6 * GIB)
    assert ledger.reserve("a", ("host",), 7 * GIB) == MustWait(7 * GIB, 6 * GIB, 9 * GIB)
    assert ledger.taken_by_neighbours("host") == 3 * GIB
    ledger.set_budget("host", total=10 * GIB, budget=5 * GIB)
    assert (ledger.free("host"), ledger.taken_by_neighbours("host")) == (5 * GIB, 0)
    ledger.set_left("host", None)
    assert ledger.free("host") == 5 * GIB


class LedgerAgainstOracle(RuleBasedStateMachine):
    """Any order of steps leaves the ledger with what a plain dictionary would have."""

    owners = Bundle("owners")

    @initialize(budget=st.integers(0, 100))
    def start(self, budget: int) -> None:
        self.ledger = Ledger()
        self.ledger.set_budget("d", total=100, budget=budget)
        self.ledger.set_budget("other", total=100, budget=100)
        self.budget = budget
        self.left: int | None = None
        self.held: dict[str, int] = {}
        self.states: dict[str, EntryState] = {}
        self.count = 0

    @rule(left=st.none() | st.integers(0, 120))
    def neighbours_come_and_go(self, left: int | None) -> None:
        self.ledger.set_left("d", left)
        self.left = left

    @rule(target=owners, size=st.integers(0, 120))
    def reserve(self, size: int) -> str:
        self.count += 1
        owner = f"o{self.count}"
        self.reserved(owner, size, self.ledger.reserve(owner, ("d",), size))
        return owner

    @rule(target=owners, size=st.integers(0, 120), warm=owners)
    def promote(self, size: int, warm: str) -> str:
        self.count += 1
        owner = f"o{self.count}"
        if warm in self.held and self.states[warm] is not EntryState.WARM:
            with pytest.raises(LedgerError):
                self.ledger.reserve(owner, ("d",), size, instead_of=warm)
            return owner
        decision = self.ledger.reserve(owner, ("d",), size, instead_of=warm)
        count = self.held.pop(warm, None)
        self.reserved(owner, size, decision)
        if count is not None and not isinstance(decision, Granted):
            self.held[warm] = count
        return owner

    def reserved(self, owner: str, size: int, decision: Decision) -> None:
        most = self.budget if self.left is None else min(self.budget, self.left)
        if size > self.budget:
            assert isinstance(decision, NeverFits)
        elif sum(self.held.values()) + size > most:
            assert isinstance(decision, MustWait)
            assert decision.free == most - sum(self.held.values())
        else:
            assert isinstance(decision, Granted)
            self.held[owner] = size
            self.states[owner] = EntryState.RESERVED

    @rule(owner=owners, actual=st.integers(0, 120))
    def keep_warm(self, owner: str, actual: int) -> None:
        if owner in self.held and self.states[owner] is not EntryState.RELEASING:
            self.ledger.keep_warm(owner, actual)
            self.held[owner] = actual
            self.states[owner] = EntryState.WARM
        else:
            with pytest.raises(LedgerError):
                self.ledger.keep_warm(owner, actual)

    @rule(owner=owners, actual=st.integers(0, 120))
    def commit(self, owner: str, actual: int) -> None:
        if owner in self.held and self.states[owner] in {
            EntryState.RESERVED,
            EntryState.COMMITTED,
        }:
            self.ledger.commit(owner, actual)
            self.held[owner] = actual
            self.states[owner] = EntryState.COMMITTED
        else:
            with pytest.raises(LedgerError):
                self.ledger.commit(owner, actual)

    @rule(owner=owners)
    def begin_release(self, owner: str) -> None:
        if owner in self.held and self.states[owner] is not EntryState.RELEASING:
            self.ledger.begin_release(owner)
            self.states[owner] = EntryState.RELEASING
        else:
            with pytest.raises(LedgerError):
                self.ledger.begin_release(owner)

    @rule(owner=consumes(owners))
    def release(self, owner: str) -> None:
        if owner in self.held:
            assert self.ledger.release(owner) == self.held.pop(owner)
        with pytest.raises(LedgerError):
            self.ledger.release(owner)

    @invariant()
    def the_sum_is_what_is_held(self) -> None:
        assert self.ledger.used("d") == sum(self.held.values())
        assert self.ledger.used("other") == 0
        entries = {e.owner: (e.bytes, e.state) for e in self.ledger.entries()}
        assert entries == {o: (count, self.states[o]) for o, count in self.held.items()}
        for state in EntryState:
            counted = sum(count for o, count in self.held.items() if self.states[o] is state)
            assert self.ledger.used_as("d", state) == counted

    def teardown(self) -> None:
        for owner in tuple(getattr(self, "held", ())):
            self.ledger.release(owner)
        assert not hasattr(self, "ledger") or self.ledger.used("d") == 0


TestLedgerAgainstOracle = LedgerAgainstOracle.TestCase
TestLedgerAgainstOracle.settings = settings(max_examples=100, deadline=None)


def test_a_million_random_steps_leave_what_a_plain_dictionary_has() -> None:
    choose = random.Random(20261125)  # noqa: S311 - a seed that can be repeated
    ledger, budget = Ledger(), 1000
    ledger.set_budget("d", total=1000, budget=budget)
    held: dict[str, int] = {}
    states: dict[str, EntryState] = {}
    used = number = steps = 0
    while steps < 1_000_000:
        steps += 1
        step = choose.random()
        first = next(iter(held), None)
        if step < 0.4 or first is None:
            number += 1
            owner, size = str(number), int(step * 1000)
            warm = first if states.get(first or "") is EntryState.WARM and size % 2 else None
            given = 0 if warm is None else held[warm]
            decision = ledger.reserve(owner, ("d",), size, instead_of=warm)
            assert isinstance(decision, Granted) == (used - given + size <= budget)
            if isinstance(decision, Granted):
                used += size - (0 if warm is None else held.pop(warm))
                held[owner], states[owner] = size, EntryState.RESERVED
            continue
        state, actual = states[first], int(choose.random() * 300)
        if step < 0.55 and state not in {EntryState.WARM, EntryState.RELEASING}:
            ledger.commit(first, actual)
            used += actual - held[first]
            held[first], states[first] = actual, EntryState.COMMITTED
        elif step < 0.7 and state is not EntryState.RELEASING:
            ledger.keep_warm(first, actual)
            used += actual - held[first]
            held[first], states[first] = actual, EntryState.WARM
        elif step < 0.85 and state is not EntryState.RELEASING:
            ledger.begin_release(first)
            states[first] = EntryState.RELEASING
        else:
            assert ledger.release(first) == held[first]
            used -= held.pop(first)
        if steps % 1000 == 0:
            assert ledger.used("d") == used == sum(held.values())
            for each in EntryState:
                counted = sum(count for owner, count in held.items() if states[owner] is each)
                assert ledger.used_as("d", each) == counted
            assert {e.owner: e.bytes for e in ledger.entries()} == held
    for owner in tuple(held):
        ledger.release(owner)
    assert ledger.used("d") == 0
