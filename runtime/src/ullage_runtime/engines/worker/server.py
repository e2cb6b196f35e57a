"""The inside of a worker process: a thread reads commands, three prepare, one owns the engine."""

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ullage_runtime.core.domain import EngineStats, GenerateRequest
from ullage_runtime.core.errors import LoadError, Overloaded, ServingError
from ullage_runtime.core.pooled import PooledRequest
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest
from ullage_runtime.engines.procfs import proportional_set_size
from ullage_runtime.engines.worker import wire
from ullage_runtime.engines.worker.backend import Backend, Outcome, Prepared
from ullage_runtime.engines.worker.board import Place
from ullage_runtime.engines.worker.outbox import Outbox
from ullage_runtime.engines.worker.preparing import Preparing, R, T

MAX_WAITING = 1024
"""Generations that may wait inside a worker; the server's own queues are far shorter."""

LENGTHY = 64 << 10
"""Characters from which a request is prepared apart, so that those with less need not wait."""

COMMAND_SECONDS = 0.005
"""How long commands are taken between two steps."""

EXIT_ORPHANED = 3
"""Exit status of a worker whose server went away."""

EXIT_DEAF = 4
"""Exit status of a worker that was sent what it cannot read."""


Told = wire.Tokenized | wire.Detokenized


@dataclass(frozen=True, slots=True)
class _Take:
    """Take a request that has been prepared."""

    prepared: Prepared


class WorkerServer:
    """Serves one backend over one socket until it is told to stop or the socket ends."""

    def __init__(self, backend: Backend, connection: socket.socket, place: Place) -> None:
        self._backend = backend
        self._connection = connection
        self._place = place
        self._sharing = 1
        self._commands: queue.SimpleQueue[wire.Command | _Take] = queue.SimpleQueue()
        self._preparing, self._lengthy = (
            Preparing(
                backend.prepare,
                ready=self._prepared,
                dropped=lambda prepared: prepared.close(),
                failed=self._refused,
                unforeseen=self._unforeseen,
            )
            for _ in range(2)
        )
        # Whoever asks for tokens waits for nobody who generates, and nobody for them.
        self._telling = Preparing(
            self._told,
            ready=self._tell,
            dropped=lambda _told: None,
            failed=self._refused,
            unforeseen=self._unforeseen,
        )
        self._send_lock = threading.Lock()
        self._outbox_lock = threading.Lock()
        self._outbox = Outbox()
        self._stopping = False

    def serve(self) -> None:
        """Greet, then work until `Shutdown`; the calling thread becomes the engine's."""
        self.send(
            wire.Hello(version=wire.VERSION, engine=self._backend.name, pid=os.getpid()),
        )
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._read_commands, name="commands", daemon=True).start()
        while not self._stopping:
            self._take_commands()
            if self._backend.busy and not self._stopping:
                self._step()
        self._backend.stop_preparing()
        ended = [thread.close() for thread in self._threads]
        if all(ended):  # else one may still use what would be freed
            self._backend.close()

    @property
    def _threads(self) -> "tuple[Preparing[Any, Any], ...]":
        return self._preparing, self._lengthy, self._telling

    def send(self, event: wire.Event) -> None:
        """Send one frame; any thread may call it."""
        frame = wire.encode(event)
        with self._send_lock:
            self._connection.sendall(frame)

    def log(self, level: str, text: str) -> None:
        """Send a line the engine's library logged, unless only its developers care."""
        if level != "debug":
            self.send(wire.Log(level=level, text=text))

    # The reading thread -------------------------------------------------------------------------

    def _read_commands(self) -> NoReturn:
        """Read until the server goes away, then exit at once: an orphan serves nobody."""
        try:
            while True:  # until the socket ends
                self._accept(wire.decode_command(self._read_frame()))
        except (OSError, EOFError):
            os._exit(EXIT_ORPHANED)
        except BaseException as error:  # noqa: BLE001 - who hears nothing must not seem alive
            sys.stderr.write(f"a command could not be taken: {error!r}\n")
            sys.stderr.flush()
            os._exit(EXIT_DEAF)

    def _read_frame(self) -> bytes:
        length = wire.frame_length(self._read_exactly(wire.LENGTH_BYTES))
        return self._read_exactly(length)

    def _read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._connection.recv(min(count - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _accept(self, command: wire.Command) -> None:
        """Answer what must not wait for the engine's thread; queue the rest."""
        match command:
            case wire.GetStats():
                self.send(wire.Stats(stats=self._stats()))
            case wire.Credit(request_id=request_id, chunks=chunks):
                with self._outbox_lock:
                    outputs = self._outbox.credited(request_id, chunks)
                    self._send_outputs(outputs)
            case wire.Cancel(request_id=request_id):
                with self._outbox_lock:
                    self._outbox.close(request_id)
                if not any(thread.cancel(request_id) for thread in self._threads):
                    self._commands.put(command)
            case wire.Generate(request=request):
                self._queue(self._lane(request.characters), request)
            case wire.Embed(request=texts) | wire.Rerank(request=texts):
                self._queue(self._lane(texts.characters), texts)
            case wire.Tokenize(request=asked) | wire.Detokenize(request=asked):
                self._queue(self._telling, asked)
            case _:
                self._commands.put(command)

    def _lane(self, characters: int) -> Preparing[GenerateRequest | PooledRequest, Prepared]:
        return self._lengthy if characters >= LENGTHY else self._preparing

    def _queue(self, thread: Preparing[R, T], request: R) -> None:
        with self._outbox_lock:
            self._outbox.open(request.request_id)
        if self._waiting < MAX_WAITING:
            thread.put(request)
        else:
            error = Overloaded("the engine's queue is full", retry_after=1)
            self._refused(request.request_id, error)

    def _stats(self) -> EngineStats:
        stats = self._backend.stats
        return replace(
            stats,
            resident_bytes=proportional_set_size(os.getpid()),
            requests_waiting=stats.requests_waiting + self._waiting,
        )

    @property
    def _waiting(self) -> int:
        """Requests that have not reached the backend yet."""
        return sum(thread.waiting for thread in self._threads) + self._commands.qsize()

    # The preparing threads ----------------------------------------------------------------------

    def _prepared(self, prepared: Prepared) -> None:
        self._commands.put(_Take(prepared))

    def _told(self, request: TokenizeRequest | DetokenizeRequest, _arrival: float) -> Told:
        if isinstance(request, TokenizeRequest):
            tokens = self._backend.tokenized(request)
            return wire.Tokenized(request_id=request.request_id, tokens=tokens)
        text = self._backend.detokenized(request)
        return wire.Detokenized(request_id=request.request_id, text=text)

    def _tell(self, told: Told) -> None:
        with self._outbox_lock:
            self._outbox.close(told.request_id)
        self.send(told)

    def _unforeseen(self, text: str) -> None:
        self.log("error", text)

    def _refused(self, request_id: str, error: ServingError) -> None:
        self._publish([(request_id, error)])

    # The engine's thread ------------------------------------------------------------------------

    def _take_commands(self) -> None:
        """Do the commands that wait; with nothing to decode, wait for one.

        Everybody who generates waits meanwhile; so with work at hand what takes long is left for
        the next step.
        """
        idle = not self._backend.busy
        if idle:
            self._place.show(working=False)
        until = time.monotonic() + COMMAND_SECONDS
        while idle or time.monotonic() < until or not self._backend.busy:
            try:
                command = self._commands.get(block=idle)
            except queue.Empty:
                break
            if idle:
                until = time.monotonic() + COMMAND_SECONDS
            self._do(command)
            idle = False
        self._place.show(working=self._backend.busy)

    def _do(self, command: wire.Command | _Take) -> None:
        match command:
            case _Take(prepared=prepared):
                prepared.submit()
            case wire.Cancel(request_id=request_id):
                self._backend.cancel(request_id)
            case wire.Estimate(spec=spec):
                self._answer_load(lambda: wire.Estimated(self._backend.estimate(spec)))
            case wire.Load(spec=spec):
                self._answer_load(lambda: wire.LoadDone(self._backend.load(spec)))
            case wire.SavePrefixes(path=path, limit=limit):
                self._save_prefixes(path, limit)
            case wire.Shutdown():
                self._stopping = True
            case _:
                raise AssertionError(f"{command.type} is dealt with by another thread")

    def _answer_load(self, work: Callable[[], wire.Event]) -> None:
        try:
            event = work()
        except LoadError as error:
            event = wire.LoadFailed(reason=error.reason, message=error.message, final=error.final)
        self.send(event)

    def _save_prefixes(self, path: str, limit: int) -> None:
        try:
            written = self._backend.save_prefixes(path, limit)
        except OSError as error:
            self.log("warning", f"prefixes cannot be saved: {error}")
            written = 0
        self.send(wire.PrefixesSaved(bytes=written))

    def _step(self) -> None:
        sharing = self._place.sharing
        if sharing != self._sharing:
            self._sharing = sharing
            self._backend.share_cpus(sharing)
        self._publish(self._backend.step())

    def _publish(self, outcomes: Sequence[Outcome]) -> None:
        with self._outbox_lock:
            self._send_outputs(self._outbox.due(outcomes))

    def _send_outputs(self, outputs: tuple[wire.Output, ...]) -> None:
        """Send one frame; the caller holds the outbox's lock, so that frames keep their order."""
        if outputs:
            self.send(wire.Step(outputs=outputs))
