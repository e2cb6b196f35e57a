"""How many prompt tokens a step takes."""

import pytest

from ullage_runtime.core.scheduling.pace import (
    ALONE_EVERY,
    QUICK_SECONDS,
    QUICK_TOKENS,
    PrefillPace,
)


def test_prefill_follows_the_machine() -> None:
    pace = PrefillPace(maximum=512)
    for _ in range(5):
        pace.observe(pace.chunk, 0, 0.01)
    assert pace.allowed(0) == 512
    for _ in range(10):
        pace.observe(pace.chunk, 0, 2.0)
    assert pace.allowed(0) == 16
    pace.observe(3, 0, 0.001)
    assert pace.allowed(0) == 16, "a short last piece says nothing about speed"


def test_while_nobody_generates_a_step_takes_what_fits_into_a_second() -> None:
    pace = PrefillPace(maximum=512)
    assert pace.allowed(0) == 128, "nobody knows yet what a token takes"
    pace.observe(128, 0, 0.128 * 3)
    assert pace.allowed(0) == 333
    pace.observe(333, 0, 333 * 0.006)
    assert pace.allowed(0) == pytest.approx(277, abs=2), "a step that was slow is learned from"
    assert pace.chunk == 128, "and says nothing of the chunk, which was smaller"
    pace.observe(128, 0, 0.016)
    pace.observe(0, 1, 0.010)
    assert pace.allowed(1, quick=512) == 256, "whoever generates waits no longer than before"


def test_beside_others_a_prompt_takes_about_as_long_as_their_own_step() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.128)
    for _ in range(20):
        pace.observe(0, 8, 0.050)
    assert 30 <= pace.allowed(8) <= 40
    for _ in range(30):
        pace.observe(45, 8, 0.050 + 45 * 0.002)
    assert 15 <= pace.allowed(8) <= 20, "a token costs twice as much beside the others"


def test_what_is_read_for_few_tokens_and_for_many_alike_is_no_token_s_own() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.384)
    for _ in range(20):
        pace.observe(0, 8, 0.040)
    assert pace.allowed(8) == 9
    for read in (0.020, 0.0):
        for _ in range(60):
            taken = pace.allowed(8)
            pace.observe(taken, 8, 0.040 + (read + taken * 0.003 if taken else 0.0))
        assert 0.8 * 0.028 <= read + pace.allowed(8) * 0.003 <= 0.028, "neither more, nor much less"


def test_what_those_who_generate_take_alone_is_looked_at_again_and_again() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.128)
    pace.observe(0, 8, 0.040)
    grown, alone = 0.0, 0
    for _ in range(20 * ALONE_EVERY):
        grown += 0.00004
        taken = 0 if pace.is_due_alone else pace.allowed(8)
        alone += not taken
        pace.observe(taken, 8, 0.040 + grown + taken * 0.001)
    assert alone == pytest.approx(20, abs=1)
    assert pace.allowed(8) >= 40, "as they take 66 ms by now; told by what they began with it is 6"
    for _ in range(2 * ALONE_EVERY):
        pace.observe(20, 0, 0.020)
    assert not pace.is_due_alone, "nobody generated meanwhile"


def test_a_width_that_never_generates_alone_is_known_from_what_prompts_leave() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.128)
    pace.observe(0, 1, 0.010)
    assert pace.allowed(8) == 6, "as if one generated, at least"
    for _ in range(20):
        pace.observe(pace.allowed(8), 8, 0.060 + pace.allowed(8) * 0.001)
    assert 40 <= pace.allowed(8) <= 60


def test_prompts_that_outnumber_those_who_generate_take_longer() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.256)
    for _ in range(20):
        pace.observe(0, 2, 0.020)
    alone = pace.allowed(16)
    assert alone <= 10, "a tenth of a millisecond more than nine tokens take"
    assert pace.allowed(2) == pytest.approx(4 * alone, abs=4)
    assert pace.allowed(2, prompts=2) == pytest.approx(8 * alone, abs=8)
    assert pace.allowed(16, prompts=2) == alone


def test_a_prompt_is_quick_by_its_tokens_and_by_their_time() -> None:
    pace = PrefillPace(maximum=512)
    pace.observe(128, 0, 0.128)
    assert pace.is_quick(QUICK_TOKENS)
    assert not pace.is_quick(QUICK_TOKENS + 1)
    slow = PrefillPace(maximum=512)
    slow.observe(128, 0, 1.28)
    assert slow.is_quick(int(QUICK_SECONDS / 0.01))
    assert not slow.is_quick(int(QUICK_SECONDS / 0.01) + 2)
    for _ in range(20):
        slow.observe(0, 16, 0.02)
    assert slow.allowed(16, quick=100) == 100, "as many as they have"
    assert slow.allowed(16, quick=400) == slow.chunk, "and no more than a step takes"
