"""The board on which a server's workers show each other who computes.

Threads of two models that compute at once would get in each other's way: each has as many as the
pod may use. So every worker marks one byte of a page they share while it has work, and takes its
share of the CPUs. Nobody waits for anybody, and a dead worker's mark is wiped by the server.
"""

import functools
import itertools
import mmap
import os
import tempfile
from typing import Final

SIZE: Final = mmap.PAGESIZE
_WORKING: Final = b"\1"
_IDLE: Final = b"\0"


class Board:
    """A page shared by processes; a worker's place on it is a number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, SIZE)
        self._places = itertools.cycle(range(SIZE))

    @classmethod
    def create(cls) -> "Board":
        """Return a new board, with nobody on it."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("ullage-workers")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def take_place(self) -> int:
        """Return a place for a new worker, long unused."""
        return next(self._places)

    def mark(self, place: int, *, working: bool) -> None:
        """Show whether a worker computes."""
        self._page[place : place + 1] = _WORKING if working else _IDLE

    @property
    def working(self) -> int:
        """How many workers compute."""
        return self._page[:].count(_WORKING)

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()
        os.close(self.fd)


@functools.cache
def server_board() -> Board:
    """Return the board of this server's workers: one for the process, like its CPUs."""
    return Board.create()


class Place:
    """One worker's place on the board."""

    def __init__(self, board: Board, place: int) -> None:
        self._board = board
        self._place = place
        self._working = False

    def show(self, *, working: bool) -> None:
        """Show whether this worker computes; cheap when nothing changes."""
        if working != self._working:
            self._working = working
            self._board.mark(self._place, working=working)

    @property
    def sharing(self) -> int:
        """How many workers share the CPUs right now, this one included."""
        return max(1, self._board.working)
