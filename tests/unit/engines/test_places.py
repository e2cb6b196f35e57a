"""The places of requests in vLLM's line, whose lower ones go first."""

from ullage_runtime.core.scheduling.sequence import AGE_SECONDS
from ullage_runtime.engines.vllm.generating import place_of


def test_who_came_first_goes_first_among_equals() -> None:
    assert place_of(0, 100.0) < place_of(0, 100.001)


def test_age_makes_up_for_a_low_priority_and_not_before_its_time() -> None:
    low = place_of(-1, 100.0)
    assert place_of(0, 100.0 + AGE_SECONDS - 1) < low < place_of(0, 100.0 + AGE_SECONDS + 1)
