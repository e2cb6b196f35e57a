"""Progress, told to a callback no more often than it is worth."""

from collections.abc import Callable

ProgressCallback = Callable[[int, int | None], None]
"""Takes the bytes there are and the bytes there will be, if known."""


class Progress:
    """Passes progress on at most once per interval; the last word always."""

    def __init__(
        self, callback: ProgressCallback, interval: float, clock: Callable[[], float]
    ) -> None:
        self._callback = callback
        self._interval = interval
        self._clock = clock
        self._told: float | None = None

    def update(self, done: int, total: int | None) -> None:
        """Tell the callback, unless it was told a moment ago."""
        now = self._clock()
        if self._told is None or now - self._told >= self._interval:
            self._told = now
            self._callback(done, total)

    def finish(self, done: int) -> None:
        """Tell the callback that all there is has come."""
        self._callback(done, done)
