"""SHA-256 of files, computed once and remembered as long as the file does not change."""

import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ullage_runtime.models.sources.failures import unavailable
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.store import Store, key_of, read_json, write_json
from ullage_runtime.models.sources.threads import in_thread

_SETTLED_NS = 2_000_000_000
"""A file changed within the last two seconds may change again within the same time stamp."""

Told = Callable[[int, int | None], None]


class Digests:
    """Digests by path, inode, size and modification time, kept in the cache's index."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def of(self, path: Path, told: Told) -> tuple[str, int]:
        """Return a file's digest and size; raises LoadError if it changes meanwhile."""
        before = await in_thread(path.stat)
        known = await in_thread(self._remembered, path, before)
        if known:
            return known, before.st_size
        sha256 = await self._hashed(path, before.st_size, told)
        after = await in_thread(path.stat)
        if _identity(before) != _identity(after):
            raise unavailable(f"{path} changed while it was read; it will be read again")
        if time.time_ns() - after.st_mtime_ns > _SETTLED_NS:
            await in_thread(self.remember, path, sha256)
        return sha256, after.st_size

    def remember(self, path: Path, sha256: str) -> None:
        """Keep the digest of a file as it is now; blocks."""
        write_json(
            self._entry(path), {"path": str(path), "sha256": sha256, **_identity(path.stat())}
        )

    def _remembered(self, path: Path, found: os.stat_result) -> str | None:
        data = read_json(self._entry(path))
        if not data or data.get("path") != str(path):
            return None
        same = all(data.get(name) == value for name, value in _identity(found).items())
        return str(data["sha256"]) if same and "sha256" in data else None

    def _entry(self, path: Path) -> Path:
        return self._store.root / "index" / "files" / f"{key_of(str(path))}.json"

    async def _hashed(self, path: Path, size: int, told: Told) -> str:
        digest = hashlib.sha256()
        with await in_thread(_opened, path) as file:
            done = 0
            while data := await in_thread(file.read, self._limits.hash_bytes):
                await in_thread(digest.update, data)
                done += len(data)
                told(done, size)
        return digest.hexdigest()


def sha256_of(data: bytes) -> str:
    """Return the digest of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def _opened(path: Path) -> IO[bytes]:
    """Open a file, not led astray by what took its place: neither a link nor a waiting pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise unavailable(f"{path} is no longer a regular file")
    return file


def _identity(found: os.stat_result) -> dict[str, int]:
    return {"inode": found.st_ino, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
