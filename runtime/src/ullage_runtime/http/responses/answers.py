"""Answers of the Responses API: one object, or a stream of named events.

What fails once a stream has begun ends it with `response.failed`. A response is stored before its
client is told that it is complete, so that the next question may follow at once.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ullage_runtime.core.domain import FinishReason, TokenLogprobs
from ullage_runtime.core.errors import InvalidRequest, ServingError
from ullage_runtime.http import sse
from ullage_runtime.http.openai.delivery import Streamed, Whole
from ullage_runtime.http.openai.generation import Generation, Step
from ullage_runtime.http.openai.logprobs import chat_logprobs
from ullage_runtime.http.responses import ids
from ullage_runtime.http.responses.schema import renamed
from ullage_runtime.http.responses.store import Item
from ullage_runtime.http.responses.turn import Event, Turn

Keep = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Stores a complete response and returns it as its client shall see it."""


class Growth:
    """A turn that grows with the steps of its generation, and is stored in the end."""

    def __init__(
        self, generation: Generation, turn: Turn, keep: Keep, searched: Item | None = None
    ) -> None:
        self.generation = generation
        self._searched = searched
        self.turn = turn
        self._keep = keep
        self._finish = FinishReason.STOP
        self._logprobs: list[TokenLogprobs] = []
        self._has_said = False

    def begin(self) -> list[Event]:
        """Return the events that precede everything that the model makes."""
        events = self.turn.begin()
        return events if self._searched is None else events + self.turn.search(self._searched)

    def add(self, step: Step) -> list[Event]:
        """Take a step in."""
        chunk = step.chunk
        self._finish = chunk.finish or self._finish
        # Tokens whose text is not known yet may turn out to be reasoning, or a call.
        self._logprobs += chunk.logprobs
        events = self.turn.think(chunk.reasoning) if chunk.reasoning else []
        if chunk.text:
            events += self._say(chunk.text)
        for delta in chunk.calls:
            if delta.name is not None:
                name = str(self.turn.response["id"]).removeprefix(f"{ids.RESPONSE}_")
                events += self.turn.call(f"call_{name}{delta.index:02x}", delta.name)
            events += self.turn.argue(delta.arguments)
        if chunk.reasoning or chunk.calls:
            self._logprobs.clear()  # there is no place for theirs
        return events

    async def end(self) -> list[Event]:
        """Complete the response and store it."""
        events = self._say("") if self._logprobs and self._has_said else []
        events += self.turn.end(self._finish, self.generation.usage)
        self.turn.response = await self._keep(self.turn.response)
        return events

    def _say(self, text: str) -> list[Event]:
        told = chat_logprobs(self._logprobs)["content"]
        self._logprobs.clear()
        self._has_said = True
        return self.turn.say(text, told)


class WholeResponse(Whole):
    """The response as one JSON object."""

    def __init__(self, growth: Growth) -> None:
        super().__init__(growth.generation)
        self._growth = growth
        growth.begin()

    def add(self, step: Step) -> None:
        """Take a step in."""
        self._growth.add(step)

    async def made(self) -> dict[str, Any]:
        """Return the complete response."""
        await self._growth.end()
        return self._growth.turn.response

    def failure(self, error: ServingError) -> ServingError:
        """Return an error in the words of this API."""
        return renamed(error) if isinstance(error, InvalidRequest) else error


class StreamedResponse(Streamed):
    """The response as server-sent events."""

    def __init__(self, growth: Growth, heartbeat: float) -> None:
        super().__init__(growth.generation, heartbeat)
        self._growth = growth

    def opening(self) -> bytes:
        """Return the events that tell of the response before it has any content."""
        return _written(self._growth.begin())

    def events(self, step: Step) -> bytes:
        """Return the events of a step."""
        return _written(self._growth.add(step))

    async def closing(self) -> bytes:
        """Return the events that end the last item and the response."""
        return _written([*await self._growth.end(), self._growth.turn.last()])

    def breaking(self, error: ServingError) -> bytes:
        """Return the one event that says why the response failed, with what there is of it."""
        self._growth.turn.fail(error, self.generation.usage)
        return _written([self._growth.turn.last()])

    def failure(self, error: ServingError) -> ServingError:
        """Return an error in the words of this API."""
        return renamed(error) if isinstance(error, InvalidRequest) else error


def _written(events: Iterable[Event]) -> bytes:
    return b"".join(sse.event(event, name=event["type"]) for event in events)
