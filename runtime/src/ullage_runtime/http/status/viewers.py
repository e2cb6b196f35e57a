"""How many are told what goes on for as long as they listen."""

import contextlib
from collections.abc import Iterator


class Viewers:
    """The count of open connections, which has a limit."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one viewer for as long as it is there."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
