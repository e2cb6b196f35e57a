"""What clients saw within a stretch of a run: failures, stalls, mixed answers, waiting times."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "P99_REQUESTS",
    "Outcome",
    "Window",
    "first_token_seconds",
    "quantile_of",
    "too_slow",
    "waits",
]

P99_REQUESTS = 100
"""Of fewer a 99th percentile is the slowest one, and says no more than that."""


@dataclass(slots=True)
class Outcome:
    """What one client saw; times are seconds on the monotonic clock."""

    started: float
    is_timed: bool = True
    """Whether its waiting counts: a busy client's does not where there is an open loop."""
    texts: list[str] = field(default_factory=list)
    """The parts of the answer, as they came."""
    times: list[float] = field(default_factory=list)
    """When each part came."""
    ended: float | None = None
    error: str | None = None
    finish: str | None = None

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.texts)

    @property
    def failed(self) -> bool:
        """Whether the stream did not come to its proper end."""
        return self.error is not None or self.finish is None

    def longest_gap(self, since: float, until: float) -> float:
        """Return the longest wait for a next token that reaches into a stretch, in seconds."""
        last = until if self.ended is None else self.ended
        moments = (self.started, *tuple(self.times), last)
        gaps = (b - a for a, b in itertools.pairwise(moments) if b >= since and a < until)
        return max(gaps, default=0.0)


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that were open at some time within one stretch of the run."""

    outcomes: Sequence[Outcome]
    began: float
    ended: float
    """When the window opened and closed, on the monotonic clock."""

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], began: float, ended: float) -> Self:
        """Return the window of a stretch, from all that was asked."""
        open_then = [
            o for o in outcomes if o.started < ended and (o.ended is None or o.ended >= began)
        ]
        return cls(open_then, began, ended)

    @property
    def started(self) -> list[Outcome]:
        """The requests that began in it."""
        return [o for o in self.outcomes if o.started >= self.began]

    @property
    def whole(self) -> list[Outcome]:
        """The requests that began in it and ended in it."""
        return [o for o in self.started if o.ended is not None and o.ended < self.ended]

    @property
    def failures(self) -> list[str]:
        """What went wrong, and when the request had begun; one entry per failed request."""
        return [
            f"{o.started - self.began:.2f} s: {o.error or 'ended without finish_reason'}"
            for o in self.outcomes
            if o.ended is not None and o.failed
        ]

    @property
    def longest_stall(self) -> float:
        """The longest time that any client waited for its next token, in seconds."""
        return max((o.longest_gap(self.began, self.ended) for o in self.outcomes), default=0.0)

    @property
    def most_at_once(self) -> int:
        """How many streams were open at the same moment, at the most."""
        steps = sorted(
            step
            for o in self.outcomes
            for step in ((max(o.started, self.began), 1), (o.ended or float("inf"), -1))
        )
        return max(itertools.accumulate(change for _, change in steps), default=0)

    @property
    def answers(self) -> Counter[str]:
        """How often each whole answer came."""
        return Counter(o.text for o in self.outcomes if o.ended is not None and not o.failed)

    def first_token_seconds(self, quantile: float) -> float:
        """Return a quantile of the time to first token of new timed requests, in seconds."""
        return first_token_seconds([self], quantile)

    def mixed(self, texts: Sequence[str]) -> list[str]:
        """Return the answers that contain more than one of `texts`."""
        return [o.text for o in self.outcomes if sum(text in o.text for text in texts) > 1]

    def require(
        self,
        *,
        texts: Sequence[str] = (),
        stall: float | None = None,
        p99: float | None = None,
    ) -> None:
        """Raise AssertionError, with all that is not so, unless every request was answered well.

        Args:
            texts: of which no answer may contain more than one.
            stall: longest that any client may have waited for its next token, in seconds.
            p99: what 99 of 100 new requests may have waited for their first token, in seconds.
        """
        wrong = [f"failed: {failure}" for failure in self.failures]
        wrong += [f"mixed: {text!r}" for text in self.mixed(texts)]
        if stall is not None and self.longest_stall > stall:
            wrong.append(f"the longest stall: {self.longest_stall:.3f} s, not {stall:.3f} s")
        if p99 is not None:
            wrong += too_slow([self], p99)
        if wrong:
            raise AssertionError("\n".join(wrong))

    def summary(self) -> dict[str, float]:
        """Return its numbers, to be printed."""
        waits = {f"p{q}_ms": self.first_token_seconds(q / 100) for q in (50, 99)}
        return {
            "seconds": round(self.ended - self.began, 2),
            "requests": len(self.started),
            "most_at_once": self.most_at_once,
            "failed": len(self.failures),
            "longest_stall_ms": round(self.longest_stall * 1000),
            **{name: round(seconds * 1000) for name, seconds in waits.items()},
        }


def waits(windows: Sequence[Window]) -> list[float]:
    """Return the times to first token of new timed requests, the shortest first, in seconds."""
    return sorted(
        o.times[0] - o.started for w in windows for o in w.started if o.is_timed and o.times
    )


def too_slow(windows: Sequence[Window], p99: float) -> list[str]:
    """Return what speaks against 99 of 100 of them having been that short, in seconds."""
    count = len(waits(windows))
    if count < P99_REQUESTS:
        return [f"a p99 takes {P99_REQUESTS} requests; there are {count}"]
    seconds = first_token_seconds(windows, 0.99)
    return [f"p99: {seconds:.3f} s, not {p99:.3f} s"] if seconds > p99 else []


def first_token_seconds(windows: Sequence[Window], quantile: float) -> float:
    """Return a quantile of them; raises ValueError when no request got a token."""
    times = waits(windows)
    if not times:
        raise ValueError("no request of this window got a token")
    return quantile_of(times, quantile)


def quantile_of(times: Sequence[float], quantile: float) -> float:
    """Return a quantile of times that are in order, the shortest first."""
    return times[min(len(times) - 1, int(quantile * len(times)))]
