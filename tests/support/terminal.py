"""A command on a pseudo-terminal, as a person would run it."""

import contextlib
import os
import pathlib
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")


class Terminal:
    """What stands on a command's terminal, and a keyboard for it."""

    def __init__(self, process: "subprocess.Popen[bytes]", descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self.raw = ""
        self._seen = 0

    @property
    def text(self) -> str:
        """Everything that was written, without colours and cursor movements."""
        return _ESCAPES.sub("", self.raw)

    def type(self, text: str) -> None:
        """Type some text; `\\x03` is Ctrl-C."""
        os.write(self._descriptor, text.encode())

    def wait_for(self, words: str, seconds: float = 90) -> None:
        """Read until the words appear after all that was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.text.find(words, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"{words!r} did not appear in:\n{self.text}")
        self._seen = at + len(words)

    def wait_end(self, seconds: float = 60) -> int:
        """Read to the end and return the command's exit status."""
        deadline = time.monotonic() + seconds
        while self._read() and time.monotonic() < deadline:
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], 0.2)
        if not ready:
            return True
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], env: Mapping[str, str], cwd: pathlib.Path
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**env, "TERM": "xterm", "COLUMNS": "120"},
        cwd=cwd,
        start_new_session=True,
        # Its own session takes the terminal, so that Ctrl-C reaches it as a signal.
        preexec_fn=_take_terminal,  # noqa: PLW1509 - one ioctl, which takes no lock
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
