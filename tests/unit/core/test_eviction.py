"""Who leaves: by example, and against plain LRU."""

from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.eviction import GRACE_SECONDS, Candidate, victims

NORMAL, HIGH = 2, 3


def names(chosen: tuple[Candidate, ...] | None) -> list[str] | None:
    return None if chosen is None else sorted(c.name for c in chosen)


def test_nobody_leaves_when_that_would_not_suffice() -> None:
    assert victims([Candidate("a", 5, idle_seconds=9)], 6, NORMAL) is None
    assert victims([], 1, NORMAL) is None


def test_pinned_models_and_higher_priorities_stay() -> None:
    candidates = [
        Candidate("pinned", 10, NORMAL, 99, pinned=True),
        Candidate("high", 10, HIGH, 99),
        Candidate("equal", 10, NORMAL, 9),
    ]
    assert names(victims(candidates, 10, NORMAL)) == ["equal"]
    assert victims(candidates, 11, NORMAL) is None
    assert names(victims(candidates, 11, HIGH)) == ["equal", "high"]


def test_the_lower_priority_leaves_first_however_long_others_are_idle() -> None:
    candidates = [Candidate("old", 10, NORMAL, 1000), Candidate("batch", 10, 0, 6)]
    assert names(victims(candidates, 10, HIGH)) == ["batch"]


def test_among_equals_the_cheapest_for_its_bytes_leaves() -> None:
    slow = Candidate("slow", 10, idle_seconds=20, reload_seconds=100)
    quick = Candidate("quick", 10, idle_seconds=10, reload_seconds=1)
    assert names(victims([slow, quick], 10, NORMAL)) == ["quick"]


def test_nobody_leaves_who_is_not_needed() -> None:
    small = Candidate("small", 1, idle_seconds=1000)
    large = Candidate("large", 10, idle_seconds=10)
    assert names(victims([small, large], 10, NORMAL)) == ["large"]


def test_a_model_in_use_or_only_just_loaded_is_not_idle() -> None:
    assert not Candidate("busy", 1).is_idle
    assert not Candidate("new", 1, idle_seconds=GRACE_SECONDS - 0.1).is_idle
    assert Candidate("idle", 1, idle_seconds=GRACE_SECONDS).is_idle


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.uuids().map(str),
        bytes=st.integers(0, 50),
        priority=st.integers(0, 4),
        idle_seconds=st.floats(0, 1000),
        reload_seconds=st.floats(0, 100),
        pinned=st.booleans(),
    ),
    max_size=8,
)


@given(CANDIDATES, st.integers(1, 200), st.integers(0, 4))
def test_victims_suffice_are_allowed_and_are_all_needed(
    candidates: list[Candidate], needed: int, priority: int
) -> None:
    chosen = victims(candidates, needed, priority)
    allowed = [c for c in candidates if not c.pinned and c.priority <= priority]
    if chosen is None:
        assert sum(c.bytes for c in allowed) < needed
        return
    assert set(chosen) <= set(allowed)
    freed = sum(c.bytes for c in chosen)
    assert freed >= needed
    assert all(freed - c.bytes < needed for c in chosen)


@given(CANDIDATES, st.integers(1, 200))
def test_of_a_higher_priority_nobody_leaves_while_lower_ones_suffice(
    candidates: list[Candidate], needed: int
) -> None:
    chosen = victims(candidates, needed, 4)
    highest = max((c.priority for c in chosen or ()), default=0)
    lower = [c for c in candidates if not c.pinned and c.priority < highest]
    assert sum(c.bytes for c in lower) < needed


@given(
    st.lists(st.integers(5, 10_000), min_size=1, max_size=12, unique=True),
    st.integers(1, 12),
)
def test_models_alike_leave_as_least_recently_used_would_have_them(
    idle: list[int], count: int
) -> None:
    candidates = [Candidate(str(i), 10, idle_seconds=seconds) for i, seconds in enumerate(idle)]
    oracle = sorted(candidates, key=lambda c: -(c.idle_seconds or 0))[:count]
    chosen = victims(candidates, 10 * count, 0)
    if len(oracle) < count:
        assert chosen is None
    else:
        assert names(chosen) == sorted(c.name for c in oracle)
