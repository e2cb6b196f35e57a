"""The order of a swap's steps, and how long requests may be held for one."""

from hypothesis import given
from hypothesis import strategies as st

from ullage_api.kinds.rollout import Strategy, SwapStep
from ullage_runtime.core.swap import Hold, Mark, SwapEnd, may_drain_first, may_follow

MARKS: list[Mark] = [*SwapStep, *SwapEnd]


@given(st.lists(st.sampled_from(MARKS), max_size=30))
def test_nothing_answers_before_it_was_checked(marks: list[Mark]) -> None:
    before: Mark | None = None
    checked = False
    for mark in marks:
        if not may_follow(mark, before):
            continue
        if mark is SwapStep.FETCHING:
            checked = False
        if mark is SwapStep.CHECKING:
            checked = True
        if mark in {SwapStep.CANARY, SwapStep.WATCHING, SwapEnd.ROLLED_BACK}:
            assert checked
        before = mark


def test_only_what_answered_is_rolled_back() -> None:
    befores = {mark for mark in MARKS if may_follow(SwapEnd.ROLLED_BACK, mark)}
    assert befores == {SwapStep.CANARY, SwapStep.WATCHING}


def test_a_hold_is_too_long_when_somebody_would_be_refused() -> None:
    assert not Hold(30, 90, 120).is_too_long
    assert Hold(30, 91, 120).is_too_long
    assert "for up to 121 s" in str(Hold(30, 91, 120))


def test_only_load_then_drain_never_takes_the_old_revision_down() -> None:
    assert [s for s in Strategy if not may_drain_first(s)] == [Strategy.LOAD_THEN_DRAIN]
