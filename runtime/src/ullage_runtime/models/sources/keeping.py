"""Who uses what of the cache: a shared lock for as long as somebody has the model.

A file that is mapped from a network volume must not vanish from under its reader in another pod,
so whoever removes something from the cache takes its lock for himself first. The lock is given
back with the last `CachedModel` that stands for the content; its file's time says when it was
last asked for.

    used/<digest>     locked and touched by whoever uses the blob or tree of that digest
"""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources.store import Store


class Hold:
    """A shared lock on one digest, given back at a block's end unless a model took it over."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._taken = False
        fcntl.flock(self._file, fcntl.LOCK_SH)
        os.utime(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._taken:
            self._file.close()

    def model(self, path: Path, sha256: str, size: int) -> CachedModel:
        """Return a model that holds the lock as long as anybody has it."""
        model = CachedModel(path=str(path), sha256=sha256, size=size)
        weakref.finalize(model, self._file.close)
        self._taken = True
        return model


def hold(store: Store, sha256: str) -> Hold:
    """Hold a digest's content, whether it is there yet or not. Blocks while it is being removed."""
    return Hold(used_mark(store, sha256))


def used_mark(store: Store, sha256: str) -> Path:
    """Return the file that is locked by whoever uses a digest's content."""
    return store.root / "used" / sha256


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Take a lock file for oneself if nobody has it; yields whether that worked."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
