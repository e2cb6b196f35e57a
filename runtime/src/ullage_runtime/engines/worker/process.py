"""A worker process as its server sees it: started, listened to, killed, and always reaped."""

import asyncio
import collections
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ullage_runtime.core.last_words import last_words
from ullage_runtime.engines.worker.board import server_board

STDERR_LINES: Final = 40
LINE_LENGTH: Final = 400
STOP_SECONDS: Final = 5.0
"""How long a worker may take to exit when it is told to, before it is killed."""

_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_PASSED_ON_PREFIXES = (
    "LC_", "PYTHON", "CUDA_", "NVIDIA_", "GGML_", "LLAMA_", "OMP_", "GOMP_", "KMP_", "COVERAGE_",
)  # fmt: skip

_SPIN: Final = {"GOMP_SPINCOUNT": "5000"}
"""Threads that wait for each other spin for a moment, some 0.1 ms, before they sleep.

Waking a sleeper hundreds of times a step costs half of an idle machine's speed; spinning for longer
takes the time that the one who is waited for may need, where CPUs are shared.
"""

_DEFAULTS: Final = {
    # An abort's own words are the last ones; the debugger that ggml would start has nothing to add.
    "GGML_NO_BACKTRACE": "1",
    # The driver's order, by which memory is accounted; by itself CUDA puts the fastest GPU first.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker process ended, with the last lines it said."""

    returncode: int
    last_words: tuple[str, ...] = ()

    @property
    def was_killed(self) -> bool:
        """Whether it ended by SIGKILL, as when the kernel runs out of memory."""
        return self.returncode == -signal.SIGKILL

    def __str__(self) -> str:
        if self.returncode < 0:
            how = f"was ended by {signal.Signals(-self.returncode).name}"
            if self.was_killed:
                how += ", as the kernel does when memory runs out"
        else:
            how = f"exited with status {self.returncode}"
        words = last_words(self.last_words)
        return f"the engine's process {how}" + (f"; its last words: {words}" if words else "")


def worker_environment(environment: Mapping[str, str], gpus: str = "") -> dict[str, str]:
    """Return the part of the environment that a worker gets: it reads untrusted files, so no keys.

    With `gpus` it sees no others. PYTHONSAFEPATH keeps modules of the working directory from
    standing in for ours.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    # The count would prevail over a policy that somebody chose.
    spin = {} if "OMP_WAIT_POLICY" in kept else _SPIN
    # They were numbered in this order, whatever another one somebody chose.
    order = {"CUDA_DEVICE_ORDER": _DEFAULTS["CUDA_DEVICE_ORDER"]}
    chosen = order | {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
    return spin | _DEFAULTS | kept | chosen | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


class WorkerProcess:
    """One spawned process and our end of the socket that joins us."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        place: int,
    ) -> None:
        self._place = place
        self.reader = reader
        self.writer = writer
        self._process = process
        self._last_words: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._stderr = asyncio.create_task(self._read_stderr())

    @classmethod
    async def spawn(cls, engine: str, gpus: str = "") -> "WorkerProcess":
        """Start a worker for an engine, which sees no other GPUs than these if any are named."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - the socket API has no keyword
        writer: asyncio.StreamWriter | None = None
        board = server_board()
        place = board.take_place()
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ullage_runtime.engines.worker",
                engine,
                str(theirs.fileno()),
                str(os.getpid()),
                str(board.fd),
                str(place),
                pass_fds=(theirs.fileno(), board.fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=worker_environment(os.environ, gpus),
            )
        except BaseException:
            # A worker that was started nevertheless reads the end of its socket, and exits.
            (writer or ours).close()
            raise
        finally:
            theirs.close()
        return cls(process, reader, writer, place)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def remember(self, line: str) -> None:
        """Keep a line that may turn out to be among the worker's last words."""
        self._last_words.append(line[:LINE_LENGTH])

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines the worker said."""
        return tuple(self._last_words)

    async def stop(self, seconds: float = STOP_SECONDS) -> WorkerExit:
        """Wait for the worker to exit, kill it when it does not, and reap it."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        return await self.wait()

    def kill(self) -> None:
        """End the worker at once; harmless when it is over."""
        if self._process.returncode is None:
            self._process.kill()

    async def wait(self) -> WorkerExit:
        """Wait until the worker is gone and its pipes are drained and closed."""
        returncode = await self._process.wait()
        await asyncio.wait({self._stderr})
        server_board().mark(self._place, working=False)
        self.writer.close()
        return WorkerExit(returncode=returncode, last_words=self.last_words)

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            raise AssertionError("the worker was started with a pipe for its standard error")
        pending = b""
        while part := await stream.read(4096):
            *lines, pending = (pending + part).split(b"\n")
            pending = pending[-LINE_LENGTH:]
            for line in lines:
                if text := line.decode(errors="replace").strip():
                    self.remember(text)
        if text := pending.decode(errors="replace").strip():
            self.remember(text)
