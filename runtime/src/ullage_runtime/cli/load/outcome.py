"""What came of a run's requests, one by one and taken together."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one request; times are seconds of one monotonic clock."""

    intended: float
    """When it should have begun. A client that falls behind does not make its server faster."""
    ended: float
    token_times: tuple[float, ...] = ()
    """When each part with text arrived."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    failure: str | None = None
    """Such as `429 overloaded`; None when the answer is complete."""

    @property
    def first_token_seconds(self) -> float:
        """Seconds from the intended start to the first text."""
        return (self.token_times[0] if self.token_times else self.ended) - self.intended

    @property
    def gaps(self) -> list[float]:
        """Return the seconds between one text and the next."""
        times = self.token_times
        return [later - earlier for earlier, later in itertools.pairwise(times)]


@dataclass(frozen=True, slots=True)
class Spread:
    """How some values are spread; nothing of nothing."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None

    def to_wire(self) -> dict[str, float | None]:
        """Return it for scripts, to the microsecond."""
        values = {"p50": self.p50, "p95": self.p95, "p99": self.p99, "max": self.max}
        return {name: None if v is None else round(v, 6) for name, v in values.items()}


def spread(values: Sequence[float]) -> Spread:
    """Return how values are spread."""
    if not values:
        return Spread(None, None, None, None)
    ordered = sorted(values)
    p50, p95, p99 = (percentile(ordered, q) for q in (50, 95, 99))
    return Spread(p50, p95, p99, ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of ordered values, between two of them where it falls there."""
    place = (len(ordered) - 1) * percent / 100
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's requests taken together."""

    seconds: float
    """From the first intended start to the last end."""
    requests: int
    completed: int
    failures: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    first_token: Spread
    inter_token: Spread
    request: Spread

    @property
    def tokens_per_second(self) -> float:
        """Tokens of complete answers per second of the run."""
        return self.output_tokens / self.seconds if self.seconds else 0.0

    @property
    def requests_per_second(self) -> float:
        """Complete answers per second of the run."""
        return self.completed / self.seconds if self.seconds else 0.0

    def to_wire(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "seconds": round(self.seconds, 6),
            "requests": self.requests,
            "completed": self.completed,
            "failures": self.failures,
            "promptTokens": self.prompt_tokens,
            "outputTokens": self.output_tokens,
            "tokensPerSecond": round(self.tokens_per_second, 3),
            "requestsPerSecond": round(self.requests_per_second, 4),
            "firstTokenSeconds": self.first_token.to_wire(),
            "interTokenSeconds": self.inter_token.to_wire(),
            "requestSeconds": self.request.to_wire(),
        }


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """Return some outcomes taken together; what failed counts as a failure and nowhere else."""
    good = [o for o in outcomes if o.failure is None]
    failures = Counter(o.failure for o in outcomes if o.failure is not None)
    began = min((o.intended for o in outcomes), default=0.0)
    return Summary(
        seconds=max((o.ended for o in outcomes), default=0.0) - began,
        requests=len(outcomes),
        completed=len(good),
        failures=dict(sorted(failures.items())),
        prompt_tokens=sum(o.prompt_tokens for o in good),
        output_tokens=sum(o.output_tokens for o in good),
        first_token=spread([o.first_token_seconds for o in good]),
        inter_token=spread([gap for o in good for gap in o.gaps]),
        request=spread([o.ended - o.intended for o in good]),
    )
