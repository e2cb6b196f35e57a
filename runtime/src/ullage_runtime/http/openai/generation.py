"""A request's generations, run in a task of their own from lease to last token.

The task holds the lease, so that it is taken and given back in one place however the request ends:
finished, failed, timed out, abandoned by its client, or cut off by a shutdown. Within it the
generations run side by side, and the first error ends them all.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self, cast

import structlog

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import Chunk, FinishReason, GenerateRequest, Usage
from ullage_runtime.core.errors import EngineFailed, RequestTimeout, ServingError
from ullage_runtime.http.errors import unexpected
from ullage_runtime.http.openai.recall import STATUS_HEADER, Recall
from ullage_runtime.http.openai.tally import Tally
from ullage_runtime.http.rate_limits import Allowance
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.http.services import Services
from ullage_runtime.http.together import together
from ullage_runtime.models.ports import Lease
from ullage_runtime.models.waits import Waits

log = structlog.stdlib.get_logger(__name__)

BUFFERED_STEPS: Final = 64
"""Steps a slow client may lag behind before its generation waits for it."""
AT_ONCE: Final = 32
"""Generations of one request that its engine has at a time; the others begin as these end."""
REQUEST_SECONDS: Final = 300
"""How long a request may take when its ModelDeployment does not say."""


Then = Callable[[str], Awaitable[None]]
"""Is given the whole text of an answer, before its client is told that it is complete."""


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk of one of the request's generations."""

    index: int
    revision: str
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class End:
    """All generations are complete."""


class Generation:
    """The generations of one request; use it as a context manager, then call `next` until End.

    `choices` says how many of the requests, which stand next to each other, continue one prompt.
    `recall` is where the answer may be kept; without it the answer is always computed.
    """

    def __init__(
        self,
        services: Services,
        model: DesiredModel,
        requests: Sequence[GenerateRequest],
        allowance: Allowance | None = None,
        *,
        choices: int = 1,
        recall: Recall | None = None,
        then: Then | None = None,
    ) -> None:
        self._then = then
        self._said: list[str] = []
        self._services = services
        self._model = model
        self._requests = requests
        self._allowance = allowance
        self._choices = choices
        self._recall = recall
        self._tally = Tally(choices)
        self._deadline = 0.0
        self._is_whole = False
        self._kept: list[Step] = []
        self._is_untold = True
        self._steps: asyncio.Queue[Step | End | ServingError] = asyncio.Queue(BUFFERED_STEPS)
        self._waits = Waits()
        self._task: asyncio.Task[None] | None = None
        self._aborted: ServingError | None = None
        self._started = time.perf_counter()
        self._has_token = False
        self._between = services.metrics.between_tokens(model.name)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        self._services.drain.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._services.drain.discard(self)
        self._waits.close()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
        finally:
            if self._allowance is not None:
                self._allowance.settle(self._tally.spent)

    @property
    def usage(self) -> Usage:
        """Tokens taken so far; complete once `next` has returned End."""
        return self._tally.usage

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's headers say of how it came about; complete with the first step."""
        return {} if self._recall is None else {STATUS_HEADER: self._recall.status}

    @property
    def is_ahead(self) -> bool:
        """Whether `next` would return at once."""
        return not self._steps.empty()

    def keep_until_whole(self) -> None:
        """Hand out no step before all are there: until then, an engine's death undoes nothing."""
        self._is_whole = True

    def abort(self, error: ServingError) -> None:
        """End the generations now; `next` raises the error."""
        self._aborted = error
        if self._task is not None:
            self._task.cancel()

    async def next(self, seconds: float | None = None) -> Step | End | None:
        """Return the next step, or None when none came in time; raises ServingError."""
        if seconds is None or not self._steps.empty():
            item = await self._steps.get()
        else:
            try:
                with self._waits.until(asyncio.get_running_loop().time() + seconds):
                    item = await self._steps.get()
            except TimeoutError:
                return None
        if isinstance(item, ServingError):
            raise item
        return item

    async def _run(self) -> None:
        try:
            await self._steps.put(await self._outcome())
        except asyncio.CancelledError:
            self._services.metrics.generation(self._model.name, "cancelled")
            if self._aborted is None:
                raise
            while not self._steps.empty():
                self._steps.get_nowait()
            self._steps.put_nowait(self._aborted)

    async def _outcome(self) -> End | ServingError:
        seconds = self._model.serving.request_seconds or REQUEST_SECONDS
        self._deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._generate()
                if self._then is not None:
                    await self._then("".join(self._said))
        except TimeoutError:
            error: ServingError = RequestTimeout(
                f"the request took longer than the {seconds} s that model {self._model.name!r} "
                "allows"
            )
        except ServingError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - the client must be told, the log has it
            error = unexpected(failure)
        else:
            self._services.metrics.generation(self._model.name, "finished")
            return End()
        self._services.metrics.generation(self._model.name, error.code)
        return error

    async def _generate(self) -> None:
        if not await self._is_recalled():
            await under_lease(
                self._services.models,
                self._model,
                self._attempt,
                tenant=self._requests[0].tenant,
                priority=self._requests[0].priority,
                is_untold=lambda: self._is_untold,
            )
        for step in self._kept:
            await self._steps.put(step)

    async def _is_recalled(self) -> bool:
        """Tell whether the answer was kept, and has been handed out."""
        if self._recall is None:
            return False
        revision = self._services.models.revision(self._model)
        chunks = self._recall.find(revision)
        if revision is None or chunks is None:
            return False
        for index, chunk in enumerate(chunks):
            self._note(index, chunk, None)
            await self._hand_out(Step(index, revision, chunk))
            self._count(index)
        return True

    async def _attempt(self, lease: Lease) -> None:
        self._tally = Tally(self._choices)
        self._kept.clear()
        self._said.clear()
        if self._recall is not None:
            self._recall.begin()
        room = asyncio.Semaphore(AT_ONCE)
        await together(
            self._one(lease, room, index, request) for index, request in enumerate(self._requests)
        )
        if self._recall is not None:
            self._recall.keep(lease.revision)

    async def _one(
        self, lease: Lease, room: asyncio.Semaphore, index: int, request: GenerateRequest
    ) -> None:
        async with room:
            left = self._deadline - asyncio.get_running_loop().time()
            # The port promises that closing cancels, which only the generator type can say.
            generator = cast(
                "AsyncGenerator[Chunk, None]",
                lease.generate(replace(request, timeout_seconds=max(left, 0.0))),
            )
            finish: FinishReason | None = None
            since: float | None = None
            async with aclosing(generator) as chunks:
                async for chunk in chunks:
                    since = self._note(index, chunk, since)
                    finish = chunk.finish
                    if finish is FinishReason.CANCELLED:
                        break
                    if self._recall is not None:
                        self._recall.add(index, chunk)
                    await self._hand_out(Step(index, lease.revision, chunk))
        if finish is None or finish is FinishReason.CANCELLED:
            raise EngineFailed("the engine broke the generation off", retry_after=1)
        self._count(index)

    async def _hand_out(self, step: Step) -> None:
        if self._then is not None and step.index == 0:
            self._said.append(step.chunk.text)
        if self._is_whole:
            self._kept.append(step)
            return
        self._is_untold = self._is_untold and not step.chunk.tells
        await self._steps.put(step)

    def _note(self, index: int, chunk: Chunk, since: float | None) -> float | None:
        """Account for a chunk; return when it came, or None when its client holds the next up."""
        now = time.perf_counter()
        self._tally.note(index, chunk)
        if since is not None:
            self._between.observe(now - since)
        if not self._has_token:
            self._has_token = True
            self._services.metrics.first_token(self._model.name, now - self._started)
        return None if self._steps.full() else now

    def _count(self, index: int) -> None:
        usage = self._tally.of(index)
        prompt = 0 if index % self._choices else usage.prompt_tokens
        self._services.metrics.tokens(self._model.name, prompt, usage.completion_tokens)
