from hypothesis import given
from hypothesis import strategies as st

from ullage_api.conditions import Condition, find, merged

STATUSES = st.sampled_from(["True", "False", "Unknown"])


def condition(status: str, time: str = "2026-01-01T00:00:00Z", **changes: str) -> Condition:
    values = {
        "type": "Ready",
        "reason": "Serving",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": time,
    }
    return Condition.model_validate(values | {"status": status} | changes)


@given(before=STATUSES, after=STATUSES)
def test_the_transition_time_moves_only_when_the_status_flips(before: str, after: str) -> None:
    old = condition(before)
    (new,) = merged([old], [condition(after, "ignored", reason="Other")], now="NOW")
    assert new.last_transition_time == (old.last_transition_time if before == after else "NOW")
    assert new.reason == "Other"


def test_a_condition_seen_for_the_first_time_gets_the_present_time() -> None:
    (new,) = merged([], [condition("True", "ignored")], now="NOW")
    assert new.last_transition_time == "NOW"


def test_a_condition_that_is_no_longer_reported_is_dropped() -> None:
    assert merged([condition("True")], [], now="NOW") == ()


def test_find_returns_none_for_an_absent_type() -> None:
    assert find([condition("True")], "Accepted") is None
