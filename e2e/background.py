"""Work that goes on beside a test, in a thread of its own, and whose failure is not lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Background"]


@dataclass(slots=True)
class Background:
    """What works between enter and exit, until `_stop` is set; `_work` says at what."""

    what: ClassVar[str]
    """What it is called when it fails."""
    end_seconds: ClassVar[float]
    """How long it may take to end once it is to stop."""
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _broken: BaseException | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._stop.clear()
        self._begin()
        self._thread = threading.Thread(target=self._watched, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(timeout=self.end_seconds)
        if error is None:
            self._check()
            if self._thread.is_alive():
                raise TimeoutError(f"{self.what} have not ended within {self.end_seconds:.0f} s")

    def _begin(self) -> None:
        """Note what has to be known of the beginning."""

    def _work(self) -> None:
        """Work until `_stop` is set, in the thread."""
        raise NotImplementedError

    def _watched(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the thread raises it
            self._broken = error

    def _check(self) -> None:
        """Raise RuntimeError if it came to its end by a failure of its own."""
        if self._broken is not None:
            raise RuntimeError(f"{self.what} themselves broke off") from self._broken
