"""Workers as children of the pod's own process, where no operator starts them."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from ullage_runtime.core.backoff import Crashes
from ullage_runtime.retrieval.ending import ended
from ullage_runtime.retrieval.reindex.wire import TOKEN_VARIABLE

log = structlog.stdlib.get_logger(__name__)

COMMAND: Final = "from ullage_runtime.cli import main; main()"
"""What `ullage` does, by this very interpreter."""
STOP_SECONDS: Final = 5.0
LAST_WORDS: Final = 1000


class Children:
    """One worker process for each job that needs one, started again when it dies."""

    def __init__(self, address: Callable[[], Awaitable[tuple[str, str]]]) -> None:
        self._address = address
        """Returns the URL of the internal API and its token."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._crashes: dict[str, tuple[Crashes, float]] = {}
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    def want(self, job: str) -> None:
        """Have a worker drive a job, unless one does."""
        task = self._tasks.get(job)
        if task is not None and not task.done():
            return
        _, not_before = self._crashes.get(job, (Crashes(), 0.0))
        if time.monotonic() >= not_before:
            self._tasks[job] = asyncio.create_task(self._run(job))

    async def close(self) -> None:
        """End them all; what they kept is gone on with by the next ones."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _run(self, job: str) -> None:
        began = time.monotonic()
        status, words = await self._lived(job)
        if status:
            crashes, _ = self._crashes.get(job, (Crashes(), 0.0))
            crashes = crashes.after_death(time.monotonic() - began)
            self._crashes[job] = crashes, time.monotonic() + crashes.delay
            log.error(
                "a reindex worker ended",
                job=job,
                status=status,
                last_words=words[-400:],
                again_in=crashes.delay,
            )

    async def _lived(self, job: str) -> tuple[int, str]:
        url, token = await self._address()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, "reindex-worker", "--pod", url, "--job", job,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(token),
        )  # fmt: skip
        self.processes[job] = process
        words = ""
        try:
            assert process.stderr is not None  # noqa: S101 - it is a pipe
            while said := await process.stderr.read(4096):
                words = (words + said.decode(errors="replace"))[-LAST_WORDS:]
            return await process.wait(), words
        finally:
            if process.returncode is None:
                await ended(process, STOP_SECONDS)
            self.processes.pop(job, None)


def _environment(token: str) -> Mapping[str, str]:
    return {**os.environ, TOKEN_VARIABLE: token, "PYTHONSAFEPATH": "1"}
