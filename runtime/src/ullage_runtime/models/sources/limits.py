"""The bounds of fetching a file: how long to wait, how often to try, how much at once."""

from dataclasses import dataclass

from ullage_runtime.core.backoff import exponential


@dataclass(frozen=True, slots=True)
class Limits:
    """Every wait, retry and buffer of the sources, in seconds, times and bytes."""

    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    """Longest silence of a server in the middle of a file."""
    redirects: int = 10
    attempts: int = 3
    """Attempts in a row that bring no new byte, before fetching gives up for now."""
    total_attempts: int = 200
    """Attempts at one file in all, whatever they bring."""
    backoff_seconds: float = 0.5
    """First pause between attempts; each further one is twice as long."""
    backoff_cap_seconds: float = 30.0
    retry_after_seconds: float = 120.0
    """Longest `Retry-After` that is waited for; with a longer one fetching gives up for now."""
    progress_seconds: float = 0.25
    lock_poll_seconds: float = 1.0
    lock_stall_seconds: float = 600.0
    """How long another process may hold a file's lock without its partial file growing."""
    flush_bytes: int = 1 << 20
    sync_bytes: int = 64 << 20
    """Bytes after which a partial file is synced to the disk."""
    hash_bytes: int = 16 << 20
    """Bytes hashed in one go; between two goes a fetch can be cancelled."""
    inspect_bytes: int = 32 << 20
    """Smallest file whose beginning is looked at before the rest comes; others come too soon."""
    disk_reserve_bytes: int = 64 << 20
    """Space that a download leaves free on the cache's volume."""

    def backoff(self, failures: int, jitter: float) -> float:
        """Return the pause after so many failures in a row; `jitter` is within [0, 1).

        Half of it is fixed and half is random, so that pods which failed together part ways.
        """
        full = exponential(max(1, failures), self.backoff_seconds, self.backoff_cap_seconds)
        return full * (0.5 + 0.5 * jitter)
