"""How fast a reindex copies: as fast as it can without being noticed by whoever searches.

The rate rises by steps while nobody is held up and is halved when somebody is, as TCP's does
(Chiu and Jain, 1989), between what the job allows and a trickle; before the first time it doubles,
and is all that is allowed where nobody searches.
It is halved once, not again before what is told of searches can show what came of it.
It stops altogether while memory is critical. Points are paid from a token bucket.
"""

from dataclasses import dataclass
from typing import Final

from ullage_api.kinds.memory import MemoryLevel

ADJUST_SECONDS: Final = 1.0
"""How often the rate is looked at."""
FIRST_RATE: Final = 1000.0
"""Points per second to begin with."""
LEAST_RATE: Final = 20.0
"""The trickle that is left when others are held up by something else than us."""
MOST_RATE: Final = 1_000_000.0
RISE: Final = 0.05
"""Share of the rate that was too high that is added at a time."""
SEEN_SECONDS: Final = 6.0
"""How long it takes until the times of searches, which are those of the last 5 s, show a change."""
BURST_SECONDS: Final = 0.5
"""Points that may be copied at once, in seconds of the rate."""
SLOWER: Final = 1.3
"""How much longer searches may take than at rest before the rate falls."""
LEAST_SLOWER_SECONDS: Final = 0.002
"""A difference that is too small to be told from chance."""
ENOUGH_SEARCHES: Final = 10
"""With fewer, the slowest of them say nothing."""
REST_SECONDS: Final = 2 * SEEN_SECONDS
"""How long searches are looked at before they are taken to be at rest."""
_CLOSE: Final = 1e-6
"""A millionth of a point is no reason to wait: sums of floats are not exact."""
LONG_QUEUE: Final = 8
"""Requests that wait for the collection's models, above which the rate falls."""
LONG_LAG: Final = 2000
"""Accepted changes that the target has yet to see, above which the rate falls."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """How busy the pod is with what matters more."""

    p95: float | None = None
    """Seconds that 95 % of the searches did not exceed."""
    searches: int = 0
    queue: int = 0
    lag: int = 0
    level: MemoryLevel | None = None


@dataclass(slots=True)
class Pace:
    """The rate of one job and its bucket; times are seconds of the caller's clock."""

    limit: float | None = None
    """Points per second that the job allows; None: as many as there can be."""
    rate: float = FIRST_RATE
    rest_p95: float | None = None
    """What 95 % of the searches did not exceed while nothing was copied."""
    why: str = ""
    """Why the rate is not higher."""
    _tokens: float = 0.0
    _at: float | None = None
    _adjusted_at: float = float("-inf")
    _highest: float = FIRST_RATE
    _pressed_at: float | None = None
    _spent: int = 0
    """Points since the rate was last looked at."""
    _resting_since: float | None = None
    _is_stopped: bool = False

    def allow(self, limit: float | None) -> None:
        """Have no more copied a second than so many points, from now on."""
        self.limit = limit
        self.rate = self._bounded(self.rate)

    def at_rest(self, pressure: Pressure) -> None:
        """Take note of how it is while nothing is being copied."""
        if pressure.searches >= ENOUGH_SEARCHES and pressure.p95 is not None:
            self.rest_p95 = pressure.p95

    def adjust(self, pressure: Pressure, now: float) -> None:
        """Take note of how it is; the rate follows, at most once a second."""
        self._is_stopped = pressure.level is MemoryLevel.CRITICAL
        if self._is_stopped:
            self.why = "memory is critical"
            self.rate = self._bounded(LEAST_RATE)
            return
        if now - self._adjusted_at < ADJUST_SECONDS:
            return
        self._fill(now)
        # What is allowed may be more than there can be.
        copied = self._spent / (now - self._adjusted_at)
        self._adjusted_at, self._spent = now, 0
        if self._rests(pressure, now):
            self.rate = self._bounded(LEAST_RATE)
            return
        self.why = self._held_up(pressure)
        if self.why:
            if self._pressed_at is None or now - self._pressed_at >= SEEN_SECONDS:
                self._pressed_at = now
                self._highest = max(min(self.rate, copied or self.rate), LEAST_RATE)
                self.rate = self._bounded(self._highest / 2)
        elif self._pressed_at is not None:
            self.rate = self._bounded(self.rate + RISE * self._highest)
        elif not pressure.searches:
            # Whoever comes is measured at rest first.
            self.rate = self._bounded(MOST_RATE)
        else:
            self.rate = self._bounded(self.rate * 2)

    def wait(self, points: int, now: float) -> float | None:
        """Return the seconds until points may be copied; None: not before pressure falls."""
        if self._is_stopped:
            return None
        self._fill(now)
        # A page larger than the bucket is paid when the bucket is full, and leaves a debt.
        missing = min(points, self._capacity) - self._tokens
        return missing / self.rate if missing > _CLOSE else 0.0

    def spend(self, points: int, now: float) -> None:
        """Pay for points, whether there were enough or not."""
        self._fill(now)
        self._tokens -= points
        self._spent += points

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._tokens += self.rate * max(0.0, now - self._at)
        self._at = now
        self._tokens = min(self._tokens, self._capacity)

    @property
    def _capacity(self) -> float:
        return max(1.0, self.rate * BURST_SECONDS)

    def _bounded(self, rate: float) -> float:
        most = MOST_RATE if self.limit is None else self.limit
        return max(min(LEAST_RATE, most), min(rate, most))

    def _rests(self, pressure: Pressure, now: float) -> bool:
        """Return whether somebody searches and nobody knows how long that takes at rest."""
        if self.rest_p95 is not None or pressure.searches < ENOUGH_SEARCHES:
            return False
        if self._resting_since is None:
            self._resting_since = now
        if now - self._resting_since < REST_SECONDS:
            self.why = "it is measured how long searches take at rest"
            return True
        self.at_rest(pressure)
        return False

    def _held_up(self, pressure: Pressure) -> str:
        if self.rest_p95 is not None and pressure.searches >= ENOUGH_SEARCHES and pressure.p95:
            most = max(self.rest_p95 * SLOWER, self.rest_p95 + LEAST_SLOWER_SECONDS)
            if pressure.p95 > most:
                return (
                    f"95 % of the searches take {1000 * pressure.p95:.1f} ms, "
                    f"{1000 * self.rest_p95:.1f} ms at rest"
                )
        if pressure.queue > LONG_QUEUE:
            return f"{pressure.queue} requests wait for the collection's models"
        if pressure.lag > LONG_LAG:
            return f"the target has yet to see {pressure.lag} changes"
        if pressure.level is MemoryLevel.HIGH:
            return "memory is high"
        return ""
