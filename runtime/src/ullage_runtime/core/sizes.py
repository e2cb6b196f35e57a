"""Byte counts and moments in words."""

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def human_bytes(count: int) -> str:
    """Return a byte count in binary units with one decimal, such as `14.2 GiB`."""
    steps = min((abs(count).bit_length() - 1) // 10, len(_UNITS) - 1)
    if steps <= 0:
        return f"{count} B"
    return f"{count / (1 << 10 * steps):.1f} {_UNITS[steps]}"


def rfc3339(moment: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a time: UTC, whole seconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
