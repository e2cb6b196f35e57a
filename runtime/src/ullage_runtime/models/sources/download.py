"""One file over HTTP, into its partial file: resumed, bounded, and checked as it comes."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.models.ports import Inspect
from ullage_runtime.models.sources.access import Access
from ullage_runtime.models.sources.failures import (
    AttemptFailed,
    checksum_mismatch,
    too_large,
    unavailable,
)
from ullage_runtime.models.sources.formats import HEAD_BYTES, checked_head
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.partial import Partial
from ullage_runtime.models.sources.responses import (
    Anew,
    Body,
    Unchanged,
    Validators,
    Whole,
    verdict,
)
from ullage_runtime.models.sources.retry import with_retries
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.uris import url_label
from ullage_runtime.models.sources.web import Web


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to download, and what is known of it."""

    url: str
    access: Access = field(default_factory=Access)
    headers: tuple[tuple[str, str], ...] = ()
    hints: Mapping[int, str] = field(default_factory=dict)
    """What to do about an answer of this status."""
    suffix: str = ".gguf"
    """What it has to begin like."""
    sha256: str | None = None
    cached: Validators = field(default_factory=Validators)
    """Validators of the copy that the cache holds; with them an unchanged file is not sent."""


class Download:
    """One file's way into its partial file; `run` may be called once."""

    def __init__(
        self,
        wanted: Wanted,
        *,
        web: Web,
        part: Partial,
        limits: Limits,
        max_bytes: int,
        make_room: Callable[[int, str], None],
        told: Callable[[int, int | None], None],
        inspect: Inspect | None = None,
    ) -> None:
        self._wanted = wanted
        self._web = web
        self._part = part
        self._limits = limits
        self._max_bytes = max_bytes
        self._make_room = make_room
        self._told = told
        self._inspect = inspect
        self._shown = 0
        self._what = url_label(wanted.url)
        self._furthest = 0

    async def run(self) -> bool:
        """Bring the partial file to its end, verified; False if the cached copy is still right.

        Raises LoadError. However it ends, the partial file is closed; it stays on the disk unless
        it is of no use.
        """
        part = self._part
        try:
            for _ in range(2):
                await self._take_up()
                if not await self._fetched():
                    return False
                if not self._wanted.sha256 or part.sha256 == self._wanted.sha256:
                    await in_thread(part.sync)
                    return True
                actual, pieced = part.sha256, part.resumed
                await in_thread(part.remove)
                if not pieced:
                    break
                # Pieces of two versions may have met; only a file in one piece is judged.
            raise checksum_mismatch(self._what, expected=self._wanted.sha256 or "", actual=actual)
        except LoadError as error:
            if error.reason in {Reason.INVALID_MODEL, Reason.WILL_NEVER_FIT}:
                await in_thread(part.remove)
            raise
        except OSError as error:
            raise self._disk_error(error) from error
        finally:
            await in_thread(part.close if part.size else part.remove)

    async def _take_up(self) -> None:
        stretches = self._part.open(self._limits.hash_bytes)
        while (size := await in_thread(next, stretches, None)) is not None:
            self._told(size, self._part.total)
        if self._part.size and not (self._part.validators.if_range or self._wanted.sha256):
            # Nothing could tell whether the rest belongs to these bytes.
            await in_thread(self._part.begin, None, Validators())

    async def _fetched(self) -> bool:
        if self._part.is_whole:
            return True
        return await with_retries(
            self._attempt,
            what=self._what,
            limits=self._limits,
            progress=lambda: self._furthest,
        )

    async def _attempt(self) -> bool:
        wanted, part = self._wanted, self._part
        request = self._web.request(
            "GET", wanted.url, headers=self._request_headers(), access=wanted.access
        )
        async with request as response:
            answer = verdict(
                response.status_code,
                response.headers,
                host=response.request.url.host,
                offset=part.size,
                total=part.total,
                validators=part.validators,
                now=datetime.now(UTC),
                hint=wanted.hints.get(response.status_code, ""),
            )
            match answer:
                case Unchanged():
                    return False
                case Whole():
                    return True
                case Anew():
                    await in_thread(part.begin, None, Validators())
                    raise AttemptFailed("the file changed on the server; it is fetched anew")
                case Body():
                    await self._begin(answer)
                    await self._receive(response)
        return True

    def _request_headers(self) -> dict[str, str]:
        headers = dict(self._wanted.headers)
        part = self._part
        if not part.size:
            return headers | self._wanted.cached.conditions()
        headers["Range"] = f"bytes={part.size}-"
        if part.validators.if_range:
            headers["If-Range"] = part.validators.if_range
        return headers

    async def _begin(self, body: Body) -> None:
        part = self._part
        if body.total is not None:
            if body.total > self._max_bytes:
                await in_thread(part.remove)
                raise too_large(self._what, body.total, self._max_bytes)
            await in_thread(self._make_room, body.total - body.start, self._what)
        if body.start == 0:
            await in_thread(part.begin, body.total, body.validators)
        else:
            part.resumed = True

    async def _receive(self, response: httpx.Response) -> None:
        """Write the body as it comes; what has come is kept, also if the rest does not."""
        buffer = bytearray()
        checked = self._part.size > 0
        try:
            async for chunk in response.aiter_raw():
                buffer += chunk
                if not checked and len(buffer) >= HEAD_BYTES:
                    self._check_head(buffer)
                    checked = True
                if len(buffer) >= self._limits.flush_bytes:
                    await self._flush(buffer)
            if not checked:
                self._check_head(buffer)
                checked = True
        finally:
            if checked:
                await self._flush(buffer)
        self._check_length()

    def _check_head(self, buffer: bytearray) -> None:
        checked_head(bytes(buffer[:HEAD_BYTES]), self._what, self._wanted.suffix)

    async def _flush(self, buffer: bytearray) -> None:
        part = self._part
        if part.size + len(buffer) > self._max_bytes:
            size = part.size + len(buffer)
            buffer.clear()
            await in_thread(part.remove)
            raise too_large(f"{self._what} is larger than announced: it", size, self._max_bytes)
        data = bytes(buffer)
        buffer.clear()
        if data:
            await in_thread(part.append, data)
            self._furthest = max(self._furthest, part.size)
            self._told(part.size, part.total)
            await self._show()

    async def _show(self) -> None:
        """Have the beginning of a large file looked at, each time there is twice as much of it."""
        part = self._part
        if self._inspect is None or part.total is None or part.total < self._limits.inspect_bytes:
            return
        if part.size < part.total and part.size >= 2 * self._shown:
            self._shown = part.size
            if await self._inspect(part.path, part.total):
                self._inspect = None

    def _check_length(self) -> None:
        part = self._part
        if part.total is not None and part.size < part.total:
            raise AttemptFailed(
                f"the file ended after {part.size} of {part.total} bytes that were announced"
            )

    def _disk_error(self, error: OSError) -> Exception:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return unavailable(
                f"the cache's volume is full: {human_bytes(self._part.size)} of {self._what} "
                "fitted; enlarge it (cache.size in the pool's profile) or remove other models"
            )
        return unavailable(f"the cache cannot be written: {error}")
