"""Bytes and times as status shows them: rounded, so that a byte more or less writes nothing."""

from datetime import UTC, datetime
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30
COARSE_STEP: Final = 256 * MIB
COARSE_FROM: Final = 4 * GIB
FINEST_STEP: Final = 4096
FINEST_PLACES: Final = 3

_UNITS: Final = (("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10))


def quantum(size: int) -> int:
    """Return the step in which a number of bytes is shown: 256 MiB, finer below 4 GiB.

    Below, it is the power of two at or under a sixteenth of the size, so that at most one part in
    sixteen is rounded away.
    """
    if size >= COARSE_FROM:
        return COARSE_STEP
    sixteenth = max(size // 16, FINEST_STEP)
    return 1 << (sixteenth.bit_length() - 1)


def quantised(size: int | None, previous: int | None = None) -> int | None:
    """Return the bytes rounded up to their step; `previous` stays while it is within one step.

    Without that hysteresis a size near a boundary would rewrite status with every sample.
    """
    if size is None:
        return None
    step = quantum(size)
    if previous is not None and previous - step <= size <= previous:
        return previous
    return -(-size // step) * step


def readable(size: int) -> str:
    """Return bytes for people, such as `14.2 GiB`."""
    for unit, factor in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def brief_seconds(seconds: float) -> str:
    """Return a duration as status shows it: a number of two digits, such as `0.18` or `12`."""
    places = 0
    while places < FINEST_PLACES and 0 < seconds * 10**places < 10:  # noqa: PLR2004 - two digits
        places += 1
    return f"{seconds:.{places}f}"


def rfc3339(moment: datetime) -> str:
    """Return a moment as Kubernetes writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
