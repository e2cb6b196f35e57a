"""Levels: how full a device's memory is, in four words that do not flicker.

More use raises the level at once, for memory that runs out does not wait. Less use lowers it only
once it has been 3 points below the level's threshold for 10 s, so that a load which comes and goes
does not set everybody in motion each time.
"""

from dataclasses import dataclass
from typing import Final

from ullage_api.kinds.memory import MemoryLevel

HYSTERESIS: Final = 0.03
"""How far below a level's threshold use must fall before the level is left."""
DWELL_SECONDS: Final = 10.0
"""How long it must stay there."""
SHORT_SECONDS: Final = 30.0
"""How long a model may be idle at most while memory is `High`, if there is a limit at all."""
IDLE_SECONDS: Final = 120.0
"""How long from `Moderate` on by default, where a model's return costs little."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Shares of a device's memory in use, 0 to 1, from which a level applies."""

    moderate: float = 0.60
    high: float = 0.80
    critical: float = 0.90


def longest_idle(level: MemoryLevel, threshold: float | None) -> float | None:
    """Return how many seconds a model may be idle and stay, at a level; None for ever.

    `threshold` is what whoever runs the pod allows from `Moderate` on, None for ever.
    """
    if level is MemoryLevel.CRITICAL:
        return 0.0
    if threshold is None or level is MemoryLevel.LOW:
        return None
    return min(SHORT_SECONDS, threshold) if level is MemoryLevel.HIGH else threshold


@dataclass(frozen=True, slots=True)
class Standing:
    """A device's level, and since when its use would allow a lower one."""

    level: MemoryLevel = MemoryLevel.LOW
    lower_since: float | None = None


def level_of(share: float, thresholds: Thresholds) -> MemoryLevel:
    """Return the level of a share in use by itself, whatever was before."""
    if share >= thresholds.critical:
        return MemoryLevel.CRITICAL
    if share >= thresholds.high:
        return MemoryLevel.HIGH
    return MemoryLevel.MODERATE if share >= thresholds.moderate else MemoryLevel.LOW


def next_standing(before: Standing, share: float, now: float, thresholds: Thresholds) -> Standing:
    """Return the standing after a share in use was read at a time, in seconds."""
    asked = level_of(share, thresholds)
    if asked.rank > before.level.rank:
        return Standing(asked)
    falling = level_of(share + HYSTERESIS, thresholds)
    if falling.rank >= before.level.rank:
        return Standing(before.level)
    since = now if before.lower_since is None else before.lower_since
    if now - since < DWELL_SECONDS:
        return Standing(before.level, since)
    return Standing(falling)
