"""WorkerEngine: the Engine that a server sees, with the library in a process of its own."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import structlog

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    Footprint,
    GenerateRequest,
    Loaded,
)
from ullage_runtime.core.errors import (
    EngineDied,
    EngineFailed,
    InvalidRequest,
    LoadError,
    ServingError,
)
from ullage_runtime.core.pooled import (
    EmbedRequest,
    Pooled,
    PooledAnswer,
    PooledPart,
    RerankRequest,
    answer_of,
)
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.engines.registry import STARTS_ALONE
from ullage_runtime.engines.worker import wire
from ullage_runtime.engines.worker.failures import error_of
from ullage_runtime.engines.worker.process import WorkerExit, WorkerProcess

HELLO_SECONDS: Final = 60.0
ESTIMATE_SECONDS: Final = 120.0
LOAD_SECONDS: Final = 1800.0
SAVE_SECONDS: Final = 10.0
STATS_SECONDS: Final = 10.0
RETRY_AFTER: Final = 1.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_Answered = Chunk | PooledPart | wire.Tokenized | wire.Detokenized
_Outcome = _Answered | ServingError
_Request = GenerateRequest | EmbedRequest | RerankRequest | TokenizeRequest | DetokenizeRequest


class WorkerEngine:
    """One model's engine in a process that is started for it and ends with it."""

    def __init__(self, process: WorkerProcess, engine: str) -> None:
        self.name = engine
        self._process = process
        self._ids = itertools.count(1)
        self._inboxes: dict[str, asyncio.Queue[_Outcome]] = {}
        self._hello: asyncio.Future[None] = _future()
        self._answer: asyncio.Future[wire.Answer] | None = None
        self._stats: asyncio.Future[EngineStats] | None = None
        self._exit: asyncio.Future[WorkerExit] = _future()
        self._asking = asyncio.Lock()
        self._unloading = False
        self._events = asyncio.create_task(self._read_events(), name=f"worker-{process.pid}")

    @classmethod
    async def start(cls, engine: str, gpus: str = "") -> "WorkerEngine":
        """Start a worker for an engine and wait until it is up; raises LoadError."""
        try:
            self = cls(await WorkerProcess.spawn(engine, gpus), engine)
        except OSError as error:
            raise LoadError(
                Reason.LOAD_FAILED,
                f"the engine's process could not be started: {error}",
                final=False,
            ) from error
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await asyncio.shield(self._hello)
        except BaseException as error:
            await self.unload()
            if isinstance(error, TimeoutError):
                raise LoadError(
                    Reason.LOAD_FAILED,
                    f"the engine's process did not come up within {HELLO_SECONDS:.0f} s",
                    final=False,
                ) from error
            raise
        return self

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def starts_alone(self) -> bool:
        """Whether no other engine of its kind may start meanwhile."""
        return self.name in STARTS_ALONE

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines the worker said."""
        return self._process.last_words

    async def estimate(self, spec: EngineSpec) -> Footprint:
        """Return what a load would take; a file that kills the worker is an invalid model."""
        try:
            answer = await self._ask(wire.Estimate(spec=spec), ESTIMATE_SECONDS)
        except EngineFailed as error:
            killed = self._exit.done() and self._exit.result().was_killed
            reason = Reason.LOAD_FAILED if killed else Reason.INVALID_MODEL
            raise LoadError(
                reason, f"reading the file ended its reader: {error.message}", final=not killed
            ) from error
        if not isinstance(answer, wire.Estimated):
            raise TypeError(f"the worker answered an estimate with {answer.type}")
        return answer.footprint

    async def load(self, spec: EngineSpec) -> Loaded:
        """Load the model; raises LoadError."""
        try:
            answer = await self._ask(wire.Load(spec=spec), LOAD_SECONDS)
        except EngineFailed as error:
            raise LoadError(Reason.LOAD_FAILED, error.message, final=False) from error
        if not isinstance(answer, wire.LoadDone):
            raise TypeError(f"the worker answered a load with {answer.type}")
        return answer.loaded

    async def save_prefixes(self, path: str, limit: int) -> int:
        """Write cached prefixes to a file; raises EngineFailed or LoadError."""
        answer = await self._ask(wire.SavePrefixes(path=path, limit=limit), SAVE_SECONDS)
        if not isinstance(answer, wire.PrefixesSaved):
            raise TypeError(f"the worker answered with {answer.type}")
        return answer.bytes

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Generate; closing the iterator cancels within one step; raises ServingError."""
        async with self._exchange(request, wire.Generate) as exchange:
            taken = 0
            while not exchange.is_over:
                chunk = _expected(await exchange.next(), Chunk)
                exchange.is_over = chunk.finish is not None
                taken += 1
                if taken == wire.CREDIT_WINDOW // 4:
                    self._post(wire.encode(wire.Credit(request_id=exchange.id, chunks=taken)))
                    taken = 0
                yield chunk

    async def embed(self, request: EmbedRequest) -> PooledAnswer:
        """Return a vector of length 1 for each text; raises ServingError."""
        async with self._exchange(request, wire.Embed) as exchange:
            return await _collected(exchange)

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        """Return a raw score for each document; raises ServingError."""
        async with self._exchange(request, wire.Rerank) as exchange:
            return await _collected(exchange)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """Return a text's tokens, whatever the engine computes meanwhile; raises ServingError."""
        async with self._exchange(request, wire.Tokenize) as exchange:
            answer = _expected(await exchange.next(), wire.Tokenized)
            exchange.is_over = True
            return answer.tokens

    async def detokenize(self, request: DetokenizeRequest) -> str:
        """Return the text of tokens, likewise."""
        async with self._exchange(request, wire.Detokenize) as exchange:
            answer = _expected(await exchange.next(), wire.Detokenized)
            exchange.is_over = True
            return answer.text

    @asynccontextmanager
    async def _exchange(
        self, request: _Request, command: Callable[..., wire.Work]
    ) -> AsyncIterator["_Exchange"]:
        """Send a request, and have it cancelled unless it is over when the exchange ends."""
        exchange = _Exchange(id=str(next(self._ids)))
        self._check_alive()
        self._inboxes[exchange.id] = exchange.inbox
        try:
            await self._send(_frame(command(request=replace(request, request_id=exchange.id))))
            yield exchange
        finally:
            del self._inboxes[exchange.id]
            if not exchange.is_over:
                self._post(wire.encode(wire.Cancel(request_id=exchange.id)))

    async def stats(self) -> EngineStats:
        """Return what the engine takes and does right now; raises EngineFailed."""
        self._check_alive()
        if self._stats is None or self._stats.done():
            self._stats = _future()
            await self._send(wire.encode(wire.GetStats()))
        waiting = self._stats
        try:
            async with asyncio.timeout(STATS_SECONDS):
                return await asyncio.shield(waiting)
        except TimeoutError as error:
            raise EngineFailed(
                f"the engine's process did not answer within {STATS_SECONDS:.0f} s",
                retry_after=RETRY_AFTER,
            ) from error

    async def ended(self) -> str:
        """Wait until the worker's process is gone, and return how it ended."""
        return str(await asyncio.shield(self._exit))

    async def unload(self) -> None:
        """End the process, which gives everything back; idempotent."""
        self._unloading = True
        if self._answer is not None and not self._answer.done():
            self._process.kill()  # in the midst of a load it would not hear
        self._post(wire.encode(wire.Shutdown()))
        stopping = asyncio.create_task(self._process.stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            self._process.kill()
            await stopping
            raise
        finally:
            await asyncio.wait({self._events})

    # ---------------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._exit.done():
            raise self._death(self._exit.result())

    def _death(self, how: WorkerExit) -> EngineDied:
        message = "the model was unloaded" if self._unloading else str(how)
        return EngineDied(message, retry_after=RETRY_AFTER)

    async def _send(self, frame: bytes) -> None:
        self._post(frame)
        try:
            await self._process.writer.drain()
        except ConnectionError:
            # The reading task learns of the worker's end as well and tells whoever waits.
            _log.debug("worker.send_failed", pid=self.pid)

    def _post(self, frame: bytes) -> None:
        """Send a small command without waiting; to a worker that is gone it means nothing."""
        if not self._process.writer.is_closing():
            self._process.writer.write(frame)

    async def _ask(self, command: wire.Command, seconds: float) -> wire.Answer:
        async with self._asking:
            self._check_alive()
            self._answer = _future()
            await self._send(wire.encode(command))
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.shield(self._answer)
            except TimeoutError as error:
                self._process.kill()
                raise LoadError(
                    Reason.LOAD_FAILED,
                    f"the engine took longer than {seconds:.0f} s to {command.type} the model",
                    final=False,
                ) from error

    async def _read_events(self) -> None:
        """Take events until the worker is gone, then tell everybody who waits for it."""
        reader = self._process.reader
        try:
            while True:
                length = wire.frame_length(await reader.readexactly(wire.LENGTH_BYTES))
                self._take(wire.decode_event(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the worker's end: how it ended is read below
        except wire.WireError as error:
            self._process.remember(str(error))
            self._process.kill()
        how = await self._process.stop()
        if not self._unloading:
            _log.warning("worker.died", pid=self.pid, engine=self.name, how=str(how))
        self._exit.set_result(how)
        self._fail_everything(self._death(how))

    def _take(self, event: wire.Event) -> None:
        match event:
            case wire.Hello(version=version):
                if version != wire.VERSION:
                    raise wire.WireError(f"the worker speaks version {version} of the wire")
                _resolve(self._hello, None)
            case wire.Step() | wire.Tokenized() | wire.Detokenized():
                self._deliver(event)
            case wire.Estimated() | wire.LoadDone() | wire.PrefixesSaved():
                _resolve(self._answer, event)
            case wire.LoadFailed(reason=reason, message=message, final=final):
                _fail(self._answer, LoadError(reason, message, final))
            case wire.Stats(stats=stats):
                _resolve(self._stats, stats)
            case wire.Log(level=level, text=text):
                if level in {"warning", "error"}:
                    self._process.remember(text)
                _log.debug("worker.log", pid=self.pid, level_inside=level, text=text)

    def _deliver(self, event: wire.Step | wire.Tokenized | wire.Detokenized) -> None:
        if not isinstance(event, wire.Step):
            self._put(event.request_id, event)
            return
        for output in event.outputs:
            if output.failure is not None:
                self._put(output.request_id, error_of(output.failure))
            elif (outcome := output.chunk or output.part) is not None:
                self._put(output.request_id, outcome)

    def _put(self, request_id: str, outcome: "_Outcome") -> None:
        inbox = self._inboxes.get(request_id)
        if inbox is not None:  # else it was cancelled meanwhile
            inbox.put_nowait(outcome)

    def _fail_everything(self, error: EngineFailed) -> None:
        _fail(self._hello, LoadError(Reason.LOAD_FAILED, error.message, final=False))
        _fail(self._answer, error)
        _fail(self._stats, error)
        for inbox in self._inboxes.values():
            inbox.put_nowait(self._death(self._exit.result()))


@dataclass(slots=True)
class _Exchange:
    """One request that the worker has, and what has come of it."""

    id: str
    inbox: "asyncio.Queue[_Outcome]" = field(default_factory=asyncio.Queue)
    is_over: bool = False
    """Whether the worker has said the last of it."""

    async def next(self) -> "_Answered":
        """Return what came next; raises ServingError."""
        outcome = await self.inbox.get()
        if isinstance(outcome, ServingError):
            self.is_over = True
            raise outcome
        return outcome


async def _collected(exchange: _Exchange) -> PooledAnswer:
    items: list[Pooled] = []
    while not exchange.is_over:
        part = _expected(await exchange.next(), PooledPart)
        items += part.items
        exchange.is_over = part.is_last
    return answer_of(items)


def _expected(outcome: "_Answered", kind: type[_T]) -> _T:
    if not isinstance(outcome, kind):
        raise TypeError(f"the worker answered with {type(outcome).__name__}")
    return outcome


def _frame(command: wire.Work) -> bytes:
    """Return the frame of a request; raises InvalidRequest when it is too long."""
    try:
        return wire.encode(command)
    except wire.WireError as error:
        raise InvalidRequest(f"the request is too large: {error}") from error


def _future() -> "asyncio.Future[Any]":
    """Return a future of the running loop whose failure nobody has to collect."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda f: f.cancelled() or f.exception())
    return future


def _resolve(future: "asyncio.Future[_T] | None", value: _T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: "asyncio.Future[_T] | None", error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
