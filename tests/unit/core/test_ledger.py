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
    decision = ledger.reserve("a", "host", 9 * GIB + 1)
    assert decision == NeverFits(required=9 * GIB + 1, budget=9 * GIB, total=10 * GIB)
    assert ledger.used("host") == 0


def test_what_fits_only_once_others_leave_must_wait(ledger: Ledger) -> None:
    assert isinstance(ledger.reserve("a", "host", 5 * GIB), Granted)
    assert ledger.reserve("b", "host", 5 * GIB) == MustWait(5 * GIB, 4 * GIB, 9 * GIB)
    ledger.release("a")
    assert isinstance(ledger.reserve("b", "host", 5 * GIB), Granted)


def test_the_actual_size_replaces_the_estimate(ledger: Ledger) -> None:
    ledger.reserve("a", "host", 5 * GIB)
    ledger.commit("a", 3 * GIB)
    assert ledger.free("host") == 6 * GIB


def test_bytes_being_released_still_count(ledger: Ledger) -> None:
    ledger.reserve("a", "host", 5 * GIB)
    ledger.commit("a", 5 * GIB)
    ledger.begin_release("a")
    assert isinstance(ledger.reserve("b", "host", 5 * GIB), MustWait)


def test_nothing_is_released_twice(ledger: Ledger) -> None:
    ledger.reserve("a", "host", 1)
    ledger.release("a")
    with pytest.raises(LedgerError):
        ledger.release("a")


def test_an_owner_has_one_entry(ledger: Ledger) -> None:
    ledger.reserve("a", "host", 1)
    with pytest.raises(LedgerError):
        ledger.reserve("a", "host", 1)


def test_what_is_being_released_is_not_committed_again(ledger: Ledger) -> None:
    ledger.reserve("a", "host", 1)
    ledger.begin_release("a")
    with pytest.raises(LedgerError):
        ledger.commit("a", 2)
    with pytest.raises(LedgerError):
        ledger.begin_release("a")


class LedgerAgainstOracle(RuleBasedStateMachine):
    """Any order of steps leaves the ledger with what a plain dictionary would have."""

    owners = Bundle("owners")

    @initialize(budget=st.integers(0, 100))
    def start(self, budget: int) -> None:
        self.ledger = Ledger()
        self.ledger.set_budget("d", total=100, budget=budget)
        self.ledger.set_budget("other", total=100, budget=100)
        self.budget = budget
        self.held: dict[str, int] = {}
        self.states: dict[str, EntryState] = {}
        self.count = 0

    @rule(target=owners, size=st.integers(0, 120))
    def reserve(self, size: int) -> str:
        self.count += 1
        owner = f"o{self.count}"
        decision = self.ledger.reserve(owner, "d", size)
        if size > self.budget:
            assert isinstance(decision, NeverFits)
        elif sum(self.held.values()) + size > self.budget:
            assert isinstance(decision, MustWait)
        else:
            assert isinstance(decision, Granted)
            self.held[owner] = size
            self.states[owner] = EntryState.RESERVED
        return owner

    @rule(owner=owners, actual=st.integers(0, 120))
    def commit(self, owner: str, actual: int) -> None:
        if owner in self.held and self.states[owner] is not EntryState.RELEASING:
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
        assert {e.owner: e.bytes for e in self.ledger.entries()} == self.held

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
    leaving: set[str] = set()
    used = number = steps = 0
    while steps < 1_000_000:
        steps += 1
        step = choose.random()
        if step < 0.4 or not held:
            number += 1
            owner, size = str(number), int(step * 1000)
            decision = ledger.reserve(owner, "d", size)
            assert isinstance(decision, Granted) == (used + size <= budget)
            if isinstance(decision, Granted):
                held[owner] = size
                used += size
            continue
        owner = next(iter(held))
        if step < 0.6 and owner not in leaving:
            actual = int(choose.random() * 300)
            ledger.commit(owner, actual)
            used += actual - held[owner]
            held[owner] = actual
        elif step < 0.8 and owner not in leaving:
            ledger.begin_release(owner)
            leaving.add(owner)
        else:
            assert ledger.release(owner) == held[owner]
            used -= held.pop(owner)
            leaving.discard(owner)
        if steps % 1000 == 0:
            assert ledger.used("d") == used == sum(held.values())
            assert ledger.used_as("d", EntryState.RELEASING) == sum(held[o] for o in leaving)
            assert {e.owner: e.bytes for e in ledger.entries()} == held
    for owner in tuple(held):
        ledger.release(owner)
    assert ledger.used("d") == 0
