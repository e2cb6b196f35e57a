"""Reads documents: plain texts here, others in a child process that is killed when it is late."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Final

from ullage_runtime.retrieval.ingest.reading.formats import Format, Unreadable, decoded

READ_SECONDS: Final = 60.0
"""How long a document may take to be read."""
AT_ONCE: Final = 2
"""Documents that are read at the same time: each may take a processor and a GiB."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """What a file says."""

    text: str
    title: str | None = None


class Reader:
    """Reads files of several formats."""

    def __init__(self, seconds: float = READ_SECONDS) -> None:
        self._seconds = seconds
        self._room = asyncio.Semaphore(AT_ONCE)

    async def read(self, data: bytes, form: Format, charset: str | None = None) -> ReadDocument:
        """Return a document's text; raises Unreadable."""
        if form in {Format.TEXT, Format.MARKDOWN, Format.JSONL}:
            return ReadDocument(decoded(data, charset, form))
        async with self._room:
            return await self._in_child(data, form, charset)

    async def _in_child(self, data: bytes, form: Format, charset: str | None) -> ReadDocument:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "ullage_runtime.retrieval.ingest.reading",
            form.value, charset or "", str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._seconds):
                said, _ = await child.communicate(data)
        except TimeoutError:
            raise Unreadable(f"it takes more than {self._seconds:g} s to read") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            answer = json.loads(said)
        except ValueError:
            raise Unreadable(
                f"it ended the process that read it (status {child.returncode}); it takes too much "
                "time or memory, or is made to harm"
            ) from None
        if "complaint" in answer:
            raise Unreadable(answer["complaint"])
        return ReadDocument(answer["text"], answer["title"])
