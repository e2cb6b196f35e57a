"""Preparing: what a request needs before the engine can take it, on a thread of its own.

Rendering a template, tokenizing a long prompt or reading a grammar can take longer than a step of
the engine. On the engine's thread every generation would wait for it; on the one that reads
commands, every cancellation.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from ullage_runtime.core.errors import ServingError

STOP_SECONDS: Final = 5.0


class Asked(Protocol):
    """A request, which has an id."""

    @property
    def request_id(self) -> str:
        """What it is cancelled by."""
        ...


R = TypeVar("R", bound=Asked)
T = TypeVar("T")

Failed = Callable[[str, ServingError], None]
Unforeseen = Callable[[str], None]


class Preparing(Generic[R, T]):
    """Prepares requests one after the other, in their order.

    `prepare` takes a request and when it came, on the monotonic clock. `ready` takes what becomes
    of it, and `dropped` what nobody wants any more.
    """

    def __init__(
        self,
        prepare: Callable[[R, float], T],
        *,
        ready: Callable[[T], None],
        dropped: Callable[[T], None],
        failed: Failed,
        unforeseen: Unforeseen,
    ) -> None:
        self._prepared = prepare
        self._ready = ready
        self._dropped = dropped
        self._failed = failed
        self._unforeseen = unforeseen
        self._queue: queue.SimpleQueue[tuple[R, float] | None] = queue.SimpleQueue()
        self._here: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="preparing", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not with the engine yet."""
        return len(self._here)

    def put(self, request: R) -> None:
        """Take a request; the caller minds how many there are."""
        with self._lock:
            self._here.add(request.request_id)
        self._queue.put((request, time.monotonic()))

    def cancel(self, request_id: str) -> bool:
        """Drop a request, and tell whether it was here: after that it never gets to the engine."""
        with self._lock:
            if request_id not in self._here:
                return False
            self._here.remove(request_id)
            return True

    def close(self) -> bool:
        """End the thread, and tell whether it ended in time; the caller makes `prepare` fail."""
        with self._lock:
            self._here.clear()
        self._queue.put(None)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            request, arrival = item
            if request.request_id in self._here:
                self._prepare(request, arrival)

    def _prepare(self, request: R, arrival: float) -> None:
        try:
            prepared = self._prepared(request, arrival)
        except ServingError as error:
            if self.cancel(request.request_id):
                self._failed(request.request_id, error)
            return
        except Exception as error:  # noqa: BLE001 - one request's bug is not everybody's
            self._unforeseen(f"a request could not be prepared: {error!r}")
            if self.cancel(request.request_id):
                failure = ServingError("internal error; the pod's log has more")
                self._failed(request.request_id, failure)
            return
        # Whoever cancels finds it either here or in the engine's queue, never in between.
        with self._lock:
            if request.request_id in self._here:
                self._here.remove(request.request_id)
                self._ready(prepared)
                return
        self._dropped(prepared)
