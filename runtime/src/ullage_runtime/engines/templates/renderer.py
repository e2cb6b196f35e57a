"""Renderer: a chat template in a child process, which is killed when it takes too long."""

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.core.backoff import exponential
from ullage_runtime.core.errors import EngineFailed, InvalidRequest, InvalidTemplate
from ullage_runtime.engines.templates import frames

START_SECONDS: Final = 20.0
"""How long Python may take to be up, on a machine that is busy."""
RENDER_SECONDS: Final = 2.0
"""How long a template may take for one request; the first one compiles it as well."""
PAUSE_FIRST_SECONDS: Final = 0.5
PAUSE_LIMIT_SECONDS: Final = 30.0

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_PASSED_ON_PREFIXES: Final = ("LC_", "PYTHON")


class Renderer:
    """Renders one template; one thread renders, any may close.

    A child that is late, dead or babbles is replaced. When that happens several times in a row,
    rendering rests for a while and fails at once: each attempt costs a CPU two seconds, and those
    who wait behind it as well.
    """

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        self._source = source
        self._specials = dict(specials)
        self._child: _Child | None = None
        self._failures = 0
        self._rests_until = 0.0
        self._last_failure = ""
        self._closed = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the child, so that the first request need not wait for it."""
        self._started()

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the template's text.

        Raises InvalidTemplate, InvalidRequest when it is the messages that the template does not
        take, or EngineFailed when there is no child to be had.
        """
        rest = self._rests_until - time.monotonic()
        if rest > 0:
            raise InvalidTemplate(
                f"{self._last_failure}; it is not tried again for {math.ceil(rest)} s",
                retry_after=rest,
            )
        answer = self._asked(variables)
        self._failures = 0
        match answer:
            case {"text": str(text)}:
                return text
            case {"complaint": str(complaint), "blames_messages": True}:
                raise InvalidRequest(f"the model's chat template {complaint}", param="messages")
            case {"complaint": str(complaint)}:
                raise InvalidTemplate(f"the model's chat template {complaint}")
            case _:
                raise self._broken("ended in an answer that is none")

    def close(self) -> None:
        """End the child; whoever waits for it is told so. Idempotent."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _asked(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            frame = frames.encoded({"variables": variables})
        except frames.FrameError as error:
            raise InvalidRequest(f"the messages are too large: {error}", param="messages") from None
        try:
            return self._started().ask(frame)
        except TimeoutError as error:
            raise self._broken(f"takes more than {RENDER_SECONDS:.0f} s") from error
        except (OSError, EOFError, frames.FrameError) as error:
            raise self._broken("ended the process that rendered it") from error

    def _started(self) -> "_Child":
        """Return the child, a new one if need be."""
        with self._lock:
            if self._closed:
                raise EngineFailed("the model was unloaded", retry_after=1)
            if self._child is None:
                try:
                    self._child = _Child(self._source, self._specials)
                except OSError as error:
                    raise EngineFailed(
                        f"no process for the chat template could be started: {error}", retry_after=1
                    ) from error
            return self._child

    def _broken(self, how: str) -> InvalidTemplate | EngineFailed:
        """Give the child up, and return the error that says why."""
        with self._lock:
            child, self._child = self._child, None
            closed = self._closed
        was_up = child is None or child.is_up
        if child is not None:
            child.end()
        if closed:
            return EngineFailed("the model was unloaded", retry_after=1)
        if not was_up:
            return EngineFailed("the process for the chat template did not come up", retry_after=1)
        self._failures += 1
        self._last_failure = f"the model's chat template {how}"
        if self._failures > 1:
            pause = exponential(self._failures - 1, PAUSE_FIRST_SECONDS, PAUSE_LIMIT_SECONDS)
            self._rests_until = time.monotonic() + pause
        return InvalidTemplate(self._last_failure)


class _Child:
    """A process with our end of its socket."""

    def __init__(self, source: str, specials: Mapping[str, str]) -> None:
        self._first = frames.encoded({"source": source, "specials": specials})
        self.is_up = False
        self._connection, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "ullage_runtime.engines.templates.child",
                    str(os.getpid()),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
            )
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()

    def ask(self, frame: bytes) -> dict[str, Any]:
        """Return the answer to a message; raises what `frames` raises."""
        if self.is_up:
            until = time.monotonic() + RENDER_SECONDS
        else:
            frames.receive(self._connection, time.monotonic() + START_SECONDS)
            self.is_up = True
            until = time.monotonic() + RENDER_SECONDS
            frames.send(self._connection, self._first, until)
        frames.send(self._connection, frame, until)
        return frames.receive(self._connection, until)

    def end(self) -> None:
        """Kill and reap it."""
        self._process.kill()
        self._process.wait()
        self._connection.close()


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
