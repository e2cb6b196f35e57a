"""Placement over several devices: who goes where, and who leaves for it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.eviction import Candidate, victims
from ullage_runtime.core.ledger import (
    Decision,
    EntryState,
    Granted,
    Ledger,
    MustWait,
    NeverFits,
)
from ullage_runtime.core.placement import best_fit, roomiest, suffices, victims_among

DEVICES = ("gpu0", "gpu1", "gpu2", "gpu3")
FREE = st.fixed_dictionaries({device: st.integers(-20, 100) for device in DEVICES})


def idle(name: str, count: int, *devices: str, priority: int = 0) -> Candidate:
    return Candidate(name, count, priority, idle_seconds=60.0, devices=devices)


def test_the_tightest_device_that_has_the_room_is_taken() -> None:
    free = {"gpu0": 80, "gpu1": 30, "gpu2": 40}
    assert best_fit(free, 25, 1) == ("gpu1",)
    assert best_fit(free, 35, 1) == ("gpu2",)
    assert best_fit(free, 35, 2) == ("gpu0", "gpu2")
    assert best_fit(free, 35, 3) is None
    assert roomiest(free, 2) == ("gpu0", "gpu2")


@given(free=FREE, count=st.integers(0, 100), among=st.integers(1, 4))
def test_what_fits_somewhere_is_placed_and_nowhere_tighter(
    free: dict[str, int], count: int, among: int
) -> None:
    possible = [
        chosen
        for chosen in itertools.combinations(DEVICES, among)
        if all(free[device] >= count for device in chosen)
    ]
    found = best_fit(free, count, among)
    if not possible:
        assert found is None
        return
    assert found is not None
    assert tuple(sorted(found)) in possible
    assert sum(free[d] for d in found) == min(sum(free[d] for d in c) for c in possible)


def test_only_who_is_on_the_device_leaves_and_where_least_is_lost() -> None:
    others = [idle("a", 50, "gpu0"), idle("b", 40, "gpu1"), idle("c", 30, "gpu1", priority=1)]
    found = victims_among(others, {"gpu0": 20, "gpu1": 20}, 1, 1)
    assert [v.name for v in found or ()] == ["b"]
    found = victims_among(others, {"gpu0": 20, "gpu1": 60}, 1, 1)
    assert [v.name for v in found or ()] == ["a"]
    assert victims_among(others, {"gpu0": 60, "gpu1": 80}, 1, 1) is None


def test_a_model_divided_among_devices_gives_back_on_each() -> None:
    both = idle("both", 30, "gpu0", "gpu1")
    found = victims_among([both, idle("c", 90, "gpu1")], {"gpu0": 20, "gpu1": 20}, 2, 0)
    assert found is not None
    assert both in found
    assert victims_among([both], {"gpu0": 20, "gpu1": 40}, 2, 0) is None


CANDIDATES = st.lists(
    st.tuples(
        st.integers(1, 50),
        st.lists(st.sampled_from(DEVICES), min_size=1, max_size=3, unique=True),
        st.integers(0, 2),
    ),
    max_size=7,
)


@given(found=CANDIDATES, lacking=FREE, among=st.integers(1, 3), priority=st.integers(0, 2))
def test_whoever_leaves_makes_the_room_and_nobody_leaves_where_it_is_of_no_use(
    found: list[tuple[int, list[str], int]], lacking: dict[str, int], among: int, priority: int
) -> None:
    candidates = [
        idle(f"m{number}", count, *devices, priority=rank)
        for number, (count, devices, rank) in enumerate(found)
    ]
    leaving = victims_among(candidates, lacking, among, priority)
    alone = [
        victims([c for c in candidates if d in c.devices], missing, priority)
        for d, missing in lacking.items()
    ]
    if leaving is None:
        assert sum(each is not None for each in alone) < among
        return
    assert all(one.may_leave_for(priority) for one in leaving)
    back = {d: sum(one.bytes for one in leaving if d in one.devices) for d in DEVICES}
    left = {device: missing - back[device] for device, missing in lacking.items()}
    assert suffices(left, among)
    if among == 1:
        for one in leaving:
            rest = {d: m + (one.bytes if d in one.devices else 0) for d, m in left.items()}
            assert not suffices(rest, 1), "with any one less it would not suffice"


class Plain:
    """What entries add up to, in a plain dictionary."""

    def __init__(self) -> None:
        self.budgets = {device: 50 + 10 * number for number, device in enumerate(DEVICES)}
        self.held: dict[str, tuple[tuple[str, ...], int]] = {}
        self.left = dict.fromkeys(DEVICES, 100)
        self.leaving: set[str] = set()

    def taken(self, device: str) -> int:
        return sum(count for devices, count in self.held.values() if device in devices)

    def leaves(self, device: str) -> int:
        return sum(n for o, (on, n) in self.held.items() if device in on and o in self.leaving)

    def decides(self, devices: tuple[str, ...], count: int) -> type[Decision]:
        if any(count > self.budgets[d] for d in devices):
            return NeverFits
        free = (min(self.budgets[d], self.left[d]) - self.taken(d) for d in devices)
        return MustWait if count > min(free) else Granted


STEPS = st.tuples(
    st.sampled_from(("reserve", "commit", "begin", "release", "neighbours")),
    st.integers(0, 5),
    st.integers(0, 60),
    st.lists(st.sampled_from(DEVICES), min_size=1, max_size=4, unique=True),
)


def step(ledger: Ledger, plain: Plain, what: str, owner: str, count: int, on: list[str]) -> None:
    devices, has, stays = tuple(on), owner in plain.held, owner not in plain.leaving
    if what == "neighbours":
        plain.left[devices[0]] = count
        ledger.set_left(devices[0], count)
    elif what == "reserve" and not has:
        decision = ledger.reserve(owner, devices, count)
        assert isinstance(decision, plain.decides(devices, count))
        if isinstance(decision, Granted):
            plain.held[owner] = devices, count
    elif what == "commit" and has and stays:
        ledger.commit(owner, count)
        plain.held[owner] = plain.held[owner][0], count
    elif what == "begin" and has and stays:
        ledger.begin_release(owner)
        plain.leaving.add(owner)
    elif what == "release" and has:
        assert ledger.release(owner) == plain.held.pop(owner)[1]
        plain.leaving.discard(owner)


@given(steps=st.lists(STEPS, max_size=60))
def test_any_order_of_steps_on_several_devices_leaves_what_plain_sums_have(
    steps: list[tuple[str, int, int, list[str]]],
) -> None:
    ledger, plain = Ledger(), Plain()
    for device, budget in plain.budgets.items():
        ledger.set_budget(device, total=100, budget=budget)
    for what, who, count, on in steps:
        step(ledger, plain, what, f"m{who}", count, on)
        for device in DEVICES:
            assert ledger.used(device) == plain.taken(device)
            assert ledger.used_as(device, EntryState.RELEASING) == plain.leaves(device)
