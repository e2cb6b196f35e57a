"""How a request's generations reach its client: in one piece, or as a stream of events.

Status and headers wait for the first token, so that what fails before it is a proper HTTP status;
but no longer than one heartbeat: after that the stream opens, comments follow while nothing is
generated, and a later failure is an event. A client that leaves, before or after, ends its
generations.
"""

import json
from abc import ABC, abstractmethod
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ullage_runtime.core.errors import ServingError
from ullage_runtime.http import sse
from ullage_runtime.http.disconnect import while_connected
from ullage_runtime.http.openai.generation import End, Generation, Step

log = structlog.stdlib.get_logger(__name__)


class Whole(Response, ABC):
    """An answer as one JSON object; an endpoint says what becomes of the steps."""

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self.generation = generation
        generation.keep_until_whole()

    @abstractmethod
    def add(self, step: Step) -> None:
        """Take a step in."""

    @abstractmethod
    async def made(self) -> dict[str, Any]:
        """Return the object, once all steps have been taken in."""

    def failure(self, error: ServingError) -> ServingError:
        """Return an error as the endpoint's clients shall see it."""
        return error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate everything and send it; raises ServingError before anything is sent."""
        body = await while_connected(receive, self._collected())
        headers = self.generation.headers
        await Response(body, media_type="application/json", headers=headers)(scope, receive, send)

    async def _collected(self) -> bytes:
        async with self.generation as generation:
            try:
                while not isinstance(item := await generation.next(), End):
                    if item is not None:
                        self.add(item)
            except ServingError as error:
                raise self.failure(error) from None
            answer = await self.made()
        return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


class Streamed(Response, ABC):
    """An answer as server-sent events; an endpoint says which."""

    def __init__(self, generation: Generation, heartbeat: float) -> None:
        super().__init__()
        self.generation = generation
        self._heartbeat = heartbeat
        self._unsent = bytearray()

    def opening(self) -> bytes:
        """Return the events that a stream begins with, whatever comes."""
        return b""

    @abstractmethod
    def events(self, step: Step) -> bytes:
        """Return the events of a step, if it has any."""

    @abstractmethod
    async def closing(self) -> bytes:
        """Return the events that end a complete stream."""

    def breaking(self, error: ServingError) -> bytes:
        """Return the event that ends a broken stream."""
        return sse.error_event(error)

    def failure(self, error: ServingError) -> ServingError:
        """Return an error as the endpoint's clients shall see it."""
        return error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream; raises ServingError as long as nothing has been sent."""
        del scope
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        async with self.generation as generation:
            try:
                first = await generation.next(self._heartbeat)
            except ServingError as error:
                raise self.failure(error) from None
            told = [(n.lower().encode(), v.encode()) for n, v in generation.headers.items()]
            headers = [*sse.HEADERS, *told]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._unsent += self.opening()
            try:
                await self._tell(generation, first, send)
                self._unsent += await self.closing()
            except ServingError as error:
                log.warning("stream ends with an error", code=error.code, error=error.message)
                self._unsent += self.breaking(self.failure(error))
            await send({"type": "http.response.body", "body": self._taken(), "more_body": False})

    async def _tell(self, generation: Generation, item: Step | End | None, send: Send) -> None:
        while not isinstance(item, End):
            self._unsent += sse.HEARTBEAT if item is None else self.events(item)
            # A step of the engine adds to several choices at once: they go out in one piece.
            if self._unsent and not generation.is_ahead:
                await send({"type": "http.response.body", "body": self._taken(), "more_body": True})
            item = await generation.next(self._heartbeat)

    def _taken(self) -> bytes:
        unsent, self._unsent = bytes(self._unsent), bytearray()
        return unsent
