"""The owner process as the runtime sees it: started, watched, started again, and ended.

The runtime listens, the owner accepts: the socket outlives an owner that dies, so the address stays
and callers queue up while the next one opens the shards.
"""

import asyncio
import contextlib
import os
import pathlib
import secrets
import sys
import time
from typing import Final

import structlog

from ullage_runtime.addresses import bound_socket
from ullage_runtime.core.backoff import Crashes
from ullage_runtime.retrieval.edge.refusals import VolumeError, VolumeInUse
from ullage_runtime.retrieval.ending import ended

log = structlog.stdlib.get_logger(__name__)

KEY_VARIABLE: Final = "ULLAGE_SHARDS_KEY"
UNUSABLE: Final = 3
"""Exit status of an owner that cannot use its volume."""
VOLUME_IN_USE: Final = 4
"""Exit status of an owner whose volume has another one."""
STOP_SECONDS: Final = 10.0
"""How long an owner may take to write everything out when it is told to end."""
LAST_WORDS: Final = 2000
"""Characters of what an owner said last that are kept."""


class ShardOwner:
    """A volume's owner process, as long as it is wanted."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.key = secrets.token_urlsafe(32)
        self.restarts = 0
        self._socket = bound_socket("127.0.0.1", 0)
        self._socket.listen(128)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._last_words = ""

    @property
    def url(self) -> str:
        """Address of its REST API, which stays the same however often it is started."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """The process that owns the volume now."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start it; raises VolumeInUse or VolumeError when it cannot own the folder."""
        try:
            await self._spawn()
        except BaseException:
            await self.close()
            raise
        opened = asyncio.create_task(self._opened())
        ended = asyncio.create_task(self._ended())
        try:
            await self._until_answered(opened, ended)
        except BaseException:
            opened.cancel()
            await self.close()
            await asyncio.gather(opened, ended, return_exceptions=True)
            raise
        self._watch = asyncio.create_task(self._watched(ended))

    async def _until_answered(
        self, opened: "asyncio.Task[None]", ended: "asyncio.Task[int]"
    ) -> None:
        await asyncio.wait({opened, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise _refusal(ended.result(), self._last_words)
        await opened

    async def close(self) -> None:
        """Let it write everything out and end; kill it when it takes too long."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        process = self._process
        if (
            process is not None
            and process.returncode is None
            and not await ended(process, STOP_SECONDS)
        ):
            log.error("the shards' owner did not end", pid=process.pid)
        self._socket.close()

    async def _spawn(self) -> None:
        fd = self._socket.fileno()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ullage_runtime.retrieval.edge", "own",
            str(self.folder), str(fd), str(os.getpid()),
            pass_fds=(fd,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, KEY_VARIABLE: self.key, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip

    async def _opened(self) -> None:
        """Return once it answers: connections wait in the socket's queue until then."""
        reader, writer = await asyncio.open_connection(*self._socket.getsockname())
        try:
            request = f"GET /collections HTTP/1.1\r\nHost: localhost\r\napi-key: {self.key}\r\n\r\n"
            writer.write(request.encode())
            await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ended(self) -> int:
        """Return its exit status once it has ended; what it says meanwhile is kept."""
        process = self._process
        assert process is not None  # noqa: S101 - it was just started
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        self._last_words = ""
        while words := await process.stderr.read(4096):
            self._last_words = (self._last_words + words.decode(errors="replace"))[-LAST_WORDS:]
        return await process.wait()

    async def _watched(self, ended: "asyncio.Task[int]") -> None:
        """Start it again whenever it ends; runs until cancelled."""
        crashes = Crashes()
        try:
            while True:
                began = time.monotonic()
                status = await ended
                crashes = crashes.after_death(time.monotonic() - began)
                self.restarts += 1
                log.error(
                    "the shards' owner ended and is started again",
                    status=status,
                    last_words=self._last_words[-400:],
                    after=crashes.delay,
                )
                await asyncio.sleep(crashes.delay)
                await self._spawn()
                ended = asyncio.create_task(self._ended())
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)


def _refusal(status: int, words: str) -> VolumeError:
    message = words.strip().splitlines()[-1] if words.strip() else f"exit status {status}"
    if status == VOLUME_IN_USE:
        return VolumeInUse(message)
    return VolumeError(f"the shards cannot be opened: {message}")
