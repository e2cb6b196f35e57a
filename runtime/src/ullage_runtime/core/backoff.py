"""How long to wait before trying again, as plain arithmetic."""

from dataclasses import dataclass
from typing import Final

LOAD_FIRST_SECONDS: Final = 1.0
LOAD_LIMIT_SECONDS: Final = 60.0
RESTART_FIRST_SECONDS: Final = 0.5
RESTART_LIMIT_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 60.0
"""An engine that has run for so long was healthy: what happened before no longer counts."""
CRASH_LOOP_DEATHS: Final = 3


def exponential(attempt: int, first: float, limit: float) -> float:
    """Return the wait after the nth failed attempt, n from 1: doubled each time, up to a limit."""
    return float(min(limit, first * 2 ** min(attempt - 1, 32)))


def load_delay(attempt: int, jitter: float) -> float:
    """Return the wait after a failed load; `jitter` in 0..1 takes up to a quarter off it."""
    return exponential(attempt, LOAD_FIRST_SECONDS, LOAD_LIMIT_SECONDS) * (1 - jitter / 4)


@dataclass(frozen=True, slots=True)
class Crashes:
    """The deaths of a model's engine since it was last healthy for long."""

    deaths: int = 0

    def after_death(self, lived_seconds: float) -> "Crashes":
        """Return the history after one more death."""
        return Crashes(1 if lived_seconds >= HEALTHY_SECONDS else self.deaths + 1)

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        if not self.deaths:
            return 0.0
        return exponential(self.deaths, RESTART_FIRST_SECONDS, RESTART_LIMIT_SECONDS)

    @property
    def is_loop(self) -> bool:
        """Whether this is a crash loop rather than an accident."""
        return self.deaths >= CRASH_LOOP_DEATHS
