"""Files that exist in memory alone, and end with the process that made them."""

import os
import threading
from pathlib import Path
from typing import Final

import psutil

CHUNK: Final = 16 << 20
"""Bytes copied between two looks at whether to go on."""

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


class MemoryFile:
    """One file in the kernel's shared memory, which only this process's descriptor keeps alive.

    Other processes of the same user open it by its path and may map it. What is mapped lasts until
    the last of them ends, whoever closes it here; a process that is killed leaves nothing behind.
    Raises OSError where there are no such files.
    """

    def __init__(self, name: str) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no files in memory")
        self._fd: int | None = os.memfd_create(name)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def copy_from(self, path: str, stop: threading.Event) -> bool:
        """Copy a file into it, blocking; False when told to stop. Raises OSError."""
        if self._fd is None:
            return False
        with Path(path).open("rb") as source:
            while not stop.is_set():
                if not os.sendfile(self._fd, source.fileno(), None, CHUNK):
                    return True
        return False

    def close(self) -> None:
        """Let go of it; idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def lies_in_memory(path: str) -> bool:
    """Whether a file's own file system is in memory, so that nothing is gained by a copy."""
    real = Path(path).resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    place = next((folder for folder in real.parents if folder in mounts), None)
    return place is not None and mounts[place] in _IN_MEMORY
