"""A lock between processes: one of them fetches an address, the others wait and watch it grow."""

import asyncio
import fcntl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ullage_runtime.models.sources.failures import unavailable
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.threads import in_thread

_FIRST_PAUSE = 0.02


@asynccontextmanager
async def held(
    path: Path, limits: Limits, watched: Callable[[], int | None]
) -> AsyncIterator[bool]:
    """Hold a lock file's lock; yields whether another process had it first.

    The kernel releases the lock with the process, however it ends. `watched` returns a size that
    grows while the holder works, or None; if it stands still for too long, LoadError is raised.
    """
    with await in_thread(path.open, "ab") as file:
        yield await _acquired(file.fileno(), path, limits, watched)


async def _acquired(
    descriptor: int, path: Path, limits: Limits, watched: Callable[[], int | None]
) -> bool:
    pause, size, since = _FIRST_PAUSE, watched(), time.monotonic()
    waited = False
    while not _try_lock(descriptor):
        waited = True
        now = time.monotonic()
        if (grown := watched()) != size:
            size, since = grown, now
        elif now - since > limits.lock_stall_seconds:
            raise unavailable(
                f"another process holds {path} and has fetched nothing for "
                f"{limits.lock_stall_seconds:.0f} s; this one will ask again"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, limits.lock_poll_seconds)
    return waited


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
