"""Room that is left on the volume of collections, and what may still be written when it is little.

The engine maps its files: where a write finds no room for a page, the process dies of it, and dies
again when it opens them. So the last of the room is left to what ends the want of it: deletions.
"""

import errno
import pathlib
import shutil
from typing import Final

MIB: Final = 1 << 20
ROOM_TO_ACCEPT: Final = 128 * MIB
"""Bytes that must be free for more to be accepted."""
ROOM_TO_WRITE: Final = 64 * MIB
"""Bytes that must be free for the engine to write what was accepted."""


def check_room(folder: pathlib.Path, least: int) -> None:
    """Raise OSError where a volume has less room than that."""
    free = shutil.disk_usage(folder).free
    if free < least:
        raise OSError(
            errno.ENOSPC,
            f"{free // MIB} MiB are free, and {least // MIB} are needed; enlarge the volume, or "
            "delete what is not needed",
            str(folder),
        )
