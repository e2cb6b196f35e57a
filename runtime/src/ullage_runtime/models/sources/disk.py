"""Room in the cache: under its quota and on its volume, what was used least recently leaves.

Only what no process uses can leave: finished files, trees, and unfinished downloads that nobody is
at. All of it blocks: call it in threads.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.models.sources.failures import unavailable
from ullage_runtime.models.sources.keeping import alone, used_mark
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.store import Store
from ullage_runtime.models.sources.trees import known_tree, remove_tree

logger = structlog.get_logger(__name__)

_STALE_SECONDS = 3600.0
"""Age from which a temporary file belongs to a process that died."""


@dataclass(frozen=True, slots=True)
class _Victim:
    """Something that may leave the cache."""

    used: float
    lock: Path
    what: str
    remove: Callable[[], None]


class DiskRoom:
    """Makes room for downloads."""

    def __init__(self, store: Store, limits: Limits, max_bytes: int | None) -> None:
        self._store = store
        self._limits = limits
        self._max_bytes = max_bytes

    def make(self, missing: int, what: str) -> None:
        """Remove what was used least recently until so many bytes fit; raises LoadError."""
        if self._free() >= missing:
            return
        for victim in sorted(self._victims(), key=lambda each: each.used):
            with alone(victim.lock) as free:
                if free:
                    victim.remove()
                    logger.info("cache_evicted", what=victim.what, wanted=missing)
            if self._free() >= missing:
                return
        raise self._full(missing, what)

    def _full(self, missing: int, what: str) -> Exception:
        disk = self._store.free_bytes()
        needs = f"{what} needs {human_bytes(missing)} more in the cache, "
        mend = "enlarge it (cache.size in the pool's profile) or remove other models"
        if self._max_bytes is not None and missing + self._limits.disk_reserve_bytes <= disk:
            return unavailable(
                f"{needs}which may have {human_bytes(self._max_bytes)} and has "
                f"{human_bytes(self._used())} that is in use; {mend}"
            )
        return unavailable(
            f"{needs}whose volume has {human_bytes(disk)} free and keeps "
            f"{human_bytes(self._limits.disk_reserve_bytes)} in reserve; {mend}"
        )

    def _free(self) -> int:
        free = self._store.free_bytes() - self._limits.disk_reserve_bytes
        return free if self._max_bytes is None else min(free, self._max_bytes - self._used())

    def _used(self) -> int:
        """Return the bytes of all files, each counted once however many links it has."""
        sizes: dict[int, int] = {}
        for folder in ("blobs", "trees", "partial"):
            for path in _files(self._store.root / folder):
                found = _stat(path)
                if found:
                    sizes[found.st_ino] = found.st_size
        return sum(sizes.values())

    def _victims(self) -> Iterator[_Victim]:
        root = self._store.root
        for path in (root / "trees").iterdir():
            yield self._content(path, partial(self._remove_tree, path))
        for path in (root / "blobs" / "sha256").iterdir():
            found = _stat(path)
            if found and found.st_nlink == 1:
                yield self._content(path, partial(path.unlink, missing_ok=True))
        for path in (root / "partial").glob("*"):
            found = _stat(path)
            if found is None or path.suffix == ".json":
                continue
            if path.suffix == ".part":
                lock = root / "locks" / f"{path.stem.split('-')[0]}.lock"
                yield _Victim(found.st_mtime, lock, path.name, partial(_drop, path))
            elif time.time() - found.st_mtime > _STALE_SECONDS:
                yield _Victim(0.0, path, path.name, partial(path.unlink, missing_ok=True))

    def _content(self, path: Path, remove: Callable[[], None]) -> _Victim:
        mark = used_mark(self._store, path.name)
        found = _stat(mark)
        return _Victim(found.st_mtime if found else 0.0, mark, path.name, remove)

    def _remove_tree(self, path: Path) -> None:
        """Remove a tree, and those of its blobs that nothing else needs."""
        tree = known_tree(self._store, path.name)
        remove_tree(self._store, path.name)
        for file in tree.files if tree else ():
            blob = self._store.blob(file.sha256)
            found = _stat(blob)
            with alone(used_mark(self._store, file.sha256)) as free:
                if free and found and found.st_nlink == 1:
                    blob.unlink(missing_ok=True)


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        for name in names:
            yield Path(top) / name


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # removed meanwhile, by us or by another pod
        return None
