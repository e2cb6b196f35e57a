"""The sequence of a report, and what is remembered of what changed when."""

from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.changes import REMEMBERED, Changes

STATES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4), min_size=1, max_size=20
)


@given(STATES, st.data())
def test_what_changed_since_a_moment_is_what_differs_from_it_or_came_and_went(
    states: list[dict[str, int]], data: st.DataObject
) -> None:
    changes = Changes()
    history: list[tuple[int, dict[str, int]]] = [(changes.sequence, {})]
    for state in states:
        is_new = changes.note(state)
        assert is_new == (state != history[-1][1])
        if is_new:
            assert changes.sequence == history[-1][0] + 1
            history.append((changes.sequence, state))
    at = data.draw(st.integers(0, len(history) - 1))
    touched = frozenset(
        name
        for (_, before), (_, after) in zip(history[at:], history[at + 1 :], strict=False)
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    )
    assert changes.since(history[at][0]) == touched


def test_nobody_can_tell_what_changed_since_a_sequence_that_was_never_reached() -> None:
    changes = Changes()
    changes.note({"a": 1})
    assert changes.since(changes.sequence) == frozenset()
    assert changes.since(changes.sequence + 1) is None
    assert changes.since(-1) is None


def test_of_what_has_gone_the_latest_are_remembered() -> None:
    changes = Changes()
    before = changes.sequence
    for number in range(REMEMBERED + 5):
        changes.note({str(number): 1})
    recent = changes.sequence - 10
    assert changes.since(before) is None
    assert changes.since(recent) == frozenset(map(str, range(REMEMBERED - 6, REMEMBERED + 5)))
