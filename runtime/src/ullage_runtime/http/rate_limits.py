"""Rate limits: how many requests and tokens a minute a key may ask of a model.

A request is charged before it is queued: one request, and the tokens its prompt is estimated to
have. Once it has ended, whichever way, the tokens it really took are put in their place. Each
process counts for itself; a forwarded request is counted where the model is.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import GenerateRequest
from ullage_runtime.http.bucket import Bucket
from ullage_runtime.http.errors import RateLimitExceeded

BYTES_PER_TOKEN: Final = 4
"""What common vocabularies make of English; only an estimate, the true count comes later."""
MESSAGE_TOKENS: Final = 4
"""What a chat template puts around a message."""
SWEEP_AT: Final = 4096
"""Pairs of model and key from which on those that used nothing lately are forgotten."""

PREFIX: Final = "x-ratelimit-"
HEADERS: Final = tuple(
    f"{PREFIX}{what}-{unit}"
    for unit in ("requests", "tokens")
    for what in ("limit", "remaining", "reset")
)
"""The headers of a limited model's answers, as OpenAI and others name them."""


@dataclass(slots=True)
class _Account:
    """What one key has used of one model."""

    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    limits: tuple[int, int] = (0, 0)
    """Requests and tokens a minute, as last asked for."""

    def is_idle(self, now: float) -> bool:
        """Whether nothing holds anything back any more, so that it may be forgotten."""
        used = zip(self.limits, (self.requests, self.tokens), strict=True)
        return all(not limit or not bucket.used(limit, now) for limit, bucket in used)


class RateLimits:
    """What every key has used of every limited model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._sweep_at = SWEEP_AT

    def allowance(self, model: DesiredModel, key_id: str) -> "Allowance | None":
        """Return what a key may ask of a model, or None when the model has no limits."""
        requests = model.serving.requests_per_minute or 0
        tokens = model.serving.tokens_per_minute or 0
        if not requests and not tokens:
            return None
        if len(self._accounts) >= self._sweep_at:
            self._sweep()

        def account() -> _Account:
            # Looked up each time: an idle account may be forgotten while its request runs.
            found = self._accounts.setdefault((model.name, key_id), _Account())
            found.limits = (requests, tokens)
            return found

        return Allowance(model.name, requests, tokens, account, self._clock)

    def _sweep(self) -> None:
        now = self._clock()
        self._accounts = {p: a for p, a in self._accounts.items() if not a.is_idle(now)}
        self._sweep_at = max(SWEEP_AT, 2 * len(self._accounts))

    def __len__(self) -> int:
        return len(self._accounts)


class Allowance:
    """What one request may take of its key's budgets."""

    def __init__(
        self,
        model: str,
        requests: int,
        tokens: int,
        account: Callable[[], _Account],
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._limits = {
            unit: limit for unit, limit in (("requests", requests), ("tokens", tokens)) if limit
        }
        self._account = account
        self._clock = clock
        self._charged: tuple[int, float] | None = None

    def _buckets(self) -> Iterator[tuple[str, int, Bucket]]:
        account = self._account()
        buckets = {"requests": account.requests, "tokens": account.tokens}
        for unit, limit in self._limits.items():
            yield unit, limit, buckets[unit]

    def take(self, tokens: int) -> None:
        """Charge the request and its estimated tokens, or raise RateLimitExceeded and nothing."""
        now = self._clock()
        costs = {"requests": 1, "tokens": tokens}
        waits = {unit: b.wait(limit, costs[unit], now) for unit, limit, b in self._buckets()}
        unit = max(waits, key=lambda each: waits[each])
        if waits[unit] > 0:
            raise self._refusal(unit, tokens, waits[unit])
        for each, limit, bucket in self._buckets():
            bucket.charge(limit, costs[each], now)
        self._charged = (tokens, now)

    def settle(self, tokens: int) -> None:
        """Put the tokens really taken in place of the estimate; only the first time counts."""
        if self._charged is None:
            return
        (charged, since), self._charged = self._charged, None
        for unit, limit, bucket in self._buckets():
            if unit == "tokens":
                bucket.settle(limit, charged, tokens, since=since, now=self._clock())

    def headers(self) -> Iterator[tuple[str, str]]:
        """Yield the headers that say what is left, as of now."""
        now = self._clock()
        for unit, limit, bucket in self._buckets():
            yield f"{PREFIX}limit-{unit}", str(limit)
            yield f"{PREFIX}remaining-{unit}", str(bucket.remaining(limit, now))
            yield f"{PREFIX}reset-{unit}", duration(bucket.seconds_to_full(limit, now))

    def _refusal(self, unit: str, tokens: int, wait: float) -> RateLimitExceeded:
        allowed = (
            f"the {self._limits[unit]} {unit} a minute that model {self._model!r} allows a key"
        )
        details = {"limited": unit}
        if math.isinf(wait):
            return RateLimitExceeded(
                f"the prompt has about {tokens} tokens, more than all of {allowed}; waiting does "
                "not help, shorten the prompt",
                details=details,
            )
        return RateLimitExceeded(
            f"{allowed} are used up; try again in {duration(wait)}",
            retry_after=wait,
            details=details,
        )


def prompt_estimate(requests: Sequence[GenerateRequest]) -> int:
    """Return about how many tokens the prompts of some generations have, without a tokenizer."""
    return sum(_estimate(request) for request in requests)


def _estimate(request: GenerateRequest) -> int:
    if request.messages is not None:
        tools = request.tools.offered if request.tools else ()
        texts = [m.content for m in request.messages]
        texts += [c.name + c.arguments for m in request.messages for c in m.calls]
        texts += [t.name + t.description + t.parameters for t in tools]
        return sum(MESSAGE_TOKENS + text_estimate(text) for text in texts)
    if isinstance(request.prompt, str):
        return text_estimate(request.prompt)
    return len(request.prompt or ())


def text_estimate(text: str) -> int:
    """Return about how many tokens a text has, without a tokenizer."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def duration(seconds: float) -> str:
    """Return a duration as the field's servers write it, such as `250ms`, `7.5s` or `6m0s`."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if 0 < milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{f'{minutes}m' if minutes else ''}{rest / 1000:g}s"
