"""The kernel's copies of files, which a measurement begins without."""

import os
from pathlib import Path


def drop(file: Path) -> None:
    """Have the kernel forget a file's pages, which nobody maps."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
