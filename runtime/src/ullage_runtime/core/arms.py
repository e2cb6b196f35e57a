"""Two revisions side by side: who gets the next request, and whether the newer one does worse."""

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Final

from ullage_runtime.core.errors import EngineFailed, InvalidOutput, RequestTimeout, ServingError

ENOUGH: Final = 5
"""Fewer answers than that tell nothing."""
SLOW: Final = 0.95
"""Share of the answers that are no slower than the slow ones."""
REMEMBERED: Final = 256
"""How many of the latest answers' times are compared."""
BLAMED: Final = (EngineFailed, InvalidOutput, RequestTimeout)
"""Errors that are the revision's fault, and not the request's."""


class Share:
    """Gives every so manieth request to the newer revision: no chance in it, and no bursts."""

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self._owed = 0

    def is_due(self) -> bool:
        """Whether the next request is one of the share."""
        return self._owed + self.percent >= 100  # noqa: PLR2004 - percent

    def count(self, *, given: bool) -> None:
        """Take note of a request, and whether the newer revision got it."""
        self._owed = min(100, self._owed) + self.percent - (100 if given else 0)


@dataclass(frozen=True, slots=True)
class Arm:
    """What one revision did since it was last asked."""

    requests: int = 0
    errors: int = 0
    token_seconds: float | None = None
    """Median time for a token of an answer; None without an answer."""
    slow_token_seconds: float | None = None
    """Likewise, the time that 95 % of the answers did not exceed."""

    @property
    def error_percent(self) -> float:
        """Share of requests that failed through its fault."""
        return 100 * self.errors / self.requests if self.requests else 0.0


@dataclass(slots=True)
class Tally:
    """Counts what becomes of one revision's requests."""

    _requests: int = 0
    _errors: int = 0
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def answered(self, seconds: float, tokens: int) -> None:
        """Count an answer and the time that its tokens took."""
        self._requests += 1
        self._times.append(seconds / max(1, tokens))

    def failed(self, error: ServingError) -> None:
        """Count a failure, if it is the revision's fault."""
        if isinstance(error, BLAMED):
            self._requests += 1
            self._errors += 1

    def arm(self) -> Arm:
        """Return the sums."""
        if not self._times:
            return Arm(self._requests, self._errors)
        times = sorted(self._times)
        slow = times[ceil(SLOW * len(times)) - 1]
        return Arm(self._requests, self._errors, median(times), slow)

    def begin(self) -> None:
        """Forget everything."""
        self._requests = self._errors = 0
        self._times.clear()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse a new revision may do."""

    error_percent: int = 1
    latency_ratio_percent: int | None = None
    """Of the older one's time for a token; None compares no times."""


def breach(newer: Arm, older: Arm, limits: Limits) -> str | None:
    """Return why the newer revision must not stay, or None while nothing speaks against it.

    An error rate that the older one has as well is not held against the newer one.
    """
    if newer.requests < ENOUGH:
        return None
    allowed = max(float(limits.error_percent), older.error_percent)
    if newer.error_percent > allowed:
        return (
            f"{newer.errors} of its {newer.requests} requests failed ({newer.error_percent:.1f} "
            f"%), {allowed:.1f} % are allowed; before, {older.errors} of {older.requests} did"
        )
    return _slower(newer, older, limits.latency_ratio_percent)


def _slower(newer: Arm, older: Arm, percent: int | None) -> str | None:
    mine, theirs = newer.token_seconds, older.token_seconds
    if percent is None or mine is None or not theirs:
        return None
    if newer.requests - newer.errors < ENOUGH or older.requests - older.errors < ENOUGH:
        return None
    ratio = 100 * mine / theirs
    if ratio <= percent:
        return None
    return (
        f"a token takes {1000 * mine:.2f} ms (median of {newer.requests} answers), {ratio:.0f} % "
        f"of the {1000 * theirs:.2f} ms before, and {percent} % are allowed"
    )
