"""Who may ask how much of which model."""

import pytest

from tests.support.scripted_models import desired_model
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import GenerateRequest, Message
from ullage_runtime.http import rate_limits
from ullage_runtime.http.errors import RateLimitExceeded
from ullage_runtime.http.rate_limits import Allowance, RateLimits, duration, prompt_estimate


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def limited(requests: int = 0, tokens: int = 0, name: str = "chat") -> DesiredModel:
    limits = ServingLimits(requests_per_minute=requests, tokens_per_minute=tokens)
    return desired_model(name, serving=limits)


def of(limits: RateLimits, model: DesiredModel, key: str = "a") -> Allowance:
    allowance = limits.allowance(model, key)
    assert allowance is not None
    return allowance


def test_a_model_without_limits_asks_nothing() -> None:
    limits = RateLimits()
    assert limits.allowance(desired_model("chat"), "a") is None
    assert limits.allowance(limited(0, 0), "a") is None
    assert len(limits) == 0


def test_each_key_and_each_model_has_its_own_budget() -> None:
    limits = RateLimits(Clock())
    for model, key in [("chat", "a"), ("chat", "b"), ("other", "a")]:
        of(limits, limited(1, name=model), key).take(0)
    with pytest.raises(RateLimitExceeded):
        of(limits, limited(1), "a").take(0)


def test_a_refusal_says_when_to_come_back_and_then_it_is_so() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    for _ in range(2):
        of(limits, limited(2)).take(0)
    with pytest.raises(RateLimitExceeded, match=r"the 2 requests a minute.*try again in 30s") as no:
        of(limits, limited(2)).take(0)
    assert no.value.retry_after == pytest.approx(30)
    clock.now += 30
    of(limits, limited(2)).take(0)


def test_a_refused_request_is_charged_nothing() -> None:
    limits = RateLimits(Clock())
    model = limited(10, 100)
    of(limits, model).take(90)
    for _ in range(20):
        with pytest.raises(RateLimitExceeded, match="100 tokens a minute"):
            of(limits, model).take(20)
    assert dict(of(limits, model).headers())["x-ratelimit-remaining-requests"] == "9"


def test_a_prompt_beyond_the_whole_budget_is_told_that_waiting_does_not_help() -> None:
    with pytest.raises(RateLimitExceeded, match="about 101 tokens, more than all of") as refused:
        of(RateLimits(Clock()), limited(tokens=100)).take(101)
    assert refused.value.retry_after is None


def test_what_was_taken_replaces_the_estimate_once() -> None:
    limits = RateLimits(Clock())
    allowance = of(limits, limited(tokens=100))
    allowance.take(10)
    allowance.settle(40)
    allowance.settle(99)
    assert dict(allowance.headers()) == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "24s",
    }


def test_a_request_that_was_never_let_in_settles_nothing() -> None:
    limits = RateLimits(Clock())
    of(limits, limited(tokens=100)).settle(50)
    assert dict(of(limits, limited(tokens=100)).headers())["x-ratelimit-remaining-tokens"] == "100"


def test_a_changed_limit_holds_at_once() -> None:
    limits = RateLimits(Clock())
    of(limits, limited(2)).take(0)
    assert dict(of(limits, limited(5)).headers())["x-ratelimit-remaining-requests"] == "4"
    assert dict(of(limits, limited(1)).headers())["x-ratelimit-remaining-requests"] == "0"


def test_keys_that_used_nothing_lately_are_forgotten_and_the_others_are_not() -> None:
    clock = Clock()
    limits = RateLimits(clock)
    for number in range(rate_limits.SWEEP_AT - 1):
        of(limits, limited(60), f"old-{number}").take(0)
    clock.now += 59
    recent = limited(1)
    of(limits, recent, "recent").take(0)
    of(limits, recent, "next").take(0)
    assert len(limits) == 2
    with pytest.raises(RateLimitExceeded):
        of(limits, recent, "recent").take(0)


def test_a_prompt_is_estimated_from_what_can_be_seen_of_it() -> None:
    requests = [
        GenerateRequest("1", prompt=(1, 2, 3)),
        GenerateRequest("2", prompt="12345"),
        GenerateRequest("3", messages=(Message("user", "1234"), Message("user", ""))),
    ]
    assert [prompt_estimate([request]) for request in requests] == [3, 2, 9]
    assert prompt_estimate(requests) == 14


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0201, "21ms"), (0.999, "999ms"), (1, "1s"), (7.66, "7.66s"), (360, "6m0s")],
)
def test_durations_are_written_as_clients_know_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
