"""Where built things live between runs, and how two builders share that place.

Nothing is ever built in place: a builder fills a temporary folder beside its target and renames it
once complete, so a target that exists is whole. A file lock keeps two builders from doing the same
minutes of work twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["building", "cache_root", "content_key", "locked"]

LOCK_POLL_SECONDS = 0.1


def cache_root() -> Path:
    """Return the folder of everything this package keeps: binaries, images and running clusters."""
    explicit = os.environ.get("ULLAGE_CACHE_DIR")
    if explicit:
        return Path(explicit).expanduser().absolute() / "cluster"
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path.home() / ".cache"
    return home.absolute() / "ullage" / "cluster"


def content_key(*parts: bytes | str) -> str:
    """Return a short name for these inputs that changes whenever one of them does.

    Every part is hashed with its length before it, so that moving a byte from one part to the
    next is a change too.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(name: str, *, timeout: float) -> Iterator[None]:
    """Hold the machine-wide lock `name`, waiting for it at most `timeout` seconds."""
    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    deadline = time.monotonic() + timeout
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another process has held {path} for {timeout:.0f} s"
                    raise DeadlineError(message) from None
                time.sleep(LOCK_POLL_SECONDS)
        yield


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """Give a folder that becomes `target` when the block ends well, and vanishes if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
