"""The devices that memory is on: one port, whatever counts the bytes.

A driver or a kernel may take its time, or never answer. So each device is read in a thread of its
own with a deadline, one call at a time; a thread that never comes back costs no second one.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import psutil

from ullage_api.wire.pod_report import DeviceKind

READ_SECONDS: Final = 5.0
"""Longest that a device may take to be read."""

T = TypeVar("T")


class DeviceError(Exception):
    """A device that cannot be read now."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A device at one moment, in bytes."""

    total: int
    used: int
    """In use by anyone."""
    own: int | None = None
    """Of that, by this process and its workers; None where the driver does not know them."""
    throttling: tuple[str, ...] = ()
    """Why it is slower than it could be."""
    stalled: float | None = None
    """Share of the last 10 s in which some process of the group waited for memory."""


class Device(Protocol):
    """One device's memory."""

    @property
    def id(self) -> str:
        """Name that stays the same for the life of the process."""
        ...

    @property
    def kind(self) -> DeviceKind:
        """What kind of memory it is."""
        ...

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def cuda_name(self) -> str:
        """What CUDA calls it; empty if it is no GPU."""
        ...

    def total(self) -> int:
        """Return the bytes there are, at once."""
        ...

    async def read(self) -> Reading:
        """Return what is so now; raises DeviceError."""
        ...

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:
        """Return the bytes that a process and those that it started take on this device.

        `resident` is what the process measured of its host memory; `estimated` is for a device
        that cannot tell.
        """
        ...


class OffLoop:
    """Runs blocking calls in threads, one at a time, each with a deadline."""

    def __init__(self, what: str, seconds: float = READ_SECONDS) -> None:
        self._what = what
        self._seconds = seconds
        self._free = asyncio.Semaphore(1)

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return what the call returns; raises DeviceError when it fails or takes too long."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
                return await asyncio.shield(self._begin(work))
        except TimeoutError as error:
            raise DeviceError(f"{self._what} did not answer within {self._seconds:g} s") from error
        except (OSError, psutil.Error) as error:
            raise DeviceError(f"{self._what} cannot be read: {error}") from error

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        # Whoever gave up waiting does not collect a failure that comes late.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())

        def finish(result: T | None, error: Exception | None) -> None:
            self._free.release()
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, failure = None, None
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, result, failure)

        threading.Thread(target=run, name=self._what, daemon=True).start()
        return future


def processes_of(pid: int) -> frozenset[int]:
    """Return a process and everything it has started; of one that has ended, itself."""
    try:
        started = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    return frozenset({pid, *(child.pid for child in started)})
