"""Answers: a request's generations written as one JSON object, or as a stream of events."""

from typing import Any, Protocol

from ullage_runtime.core.domain import Chunk, Usage
from ullage_runtime.core.joining import joined
from ullage_runtime.http import sse
from ullage_runtime.http.openai.delivery import Streamed, Whole
from ullage_runtime.http.openai.generation import Generation, Step


class Shape(Protocol):
    """How one endpoint writes its objects."""

    def whole(self, choices: list[Chunk], revision: str, usage: Usage) -> dict[str, Any]:
        """Return the object of an answer that is not streamed."""
        ...

    def opening(self, step: Step) -> list[dict[str, Any]]:
        """Return the events that precede a choice's first step."""
        ...

    def step(self, step: Step) -> dict[str, Any]:
        """Return the event of a step."""
        ...

    def usage(self, revision: str, usage: Usage) -> dict[str, Any]:
        """Return the event that carries the usage."""
        ...


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class WholeAnswer(Whole):
    """The answer as one JSON object."""

    def __init__(self, generation: Generation, shape: Shape) -> None:
        super().__init__(generation)
        self._shape = shape
        self._choices: dict[int, list[Chunk]] = {}
        self._revision = ""

    def add(self, step: Step) -> None:
        """Add a step to its choice."""
        self._revision = step.revision
        self._choices.setdefault(step.index, []).append(step.chunk)

    async def made(self) -> dict[str, Any]:
        """Return the object with all choices."""
        choices = [joined(self._choices[index]) for index in sorted(self._choices)]
        return self._shape.whole(choices, self._revision, self.generation.usage)


class StreamedAnswer(Streamed):
    """The answer as server-sent events."""

    def __init__(
        self, generation: Generation, shape: Shape, *, heartbeat: float, with_usage: bool
    ) -> None:
        super().__init__(generation, heartbeat)
        self._shape = shape
        self._with_usage = with_usage
        self._opened: set[int] = set()
        self._revision = ""

    def events(self, step: Step) -> bytes:
        """Return the events of a step, after those that open its choice."""
        self._revision = step.revision
        events = [] if step.index in self._opened else self._shape.opening(step)
        self._opened.add(step.index)
        if step.chunk.tells:
            events = [*events, self._shape.step(step)]
        return b"".join(map(self._event, events))

    async def closing(self) -> bytes:
        """Return the usage, if it is asked for, and the end."""
        if not self._with_usage:
            return sse.DONE
        return sse.event(self._shape.usage(self._revision, self.generation.usage)) + sse.DONE

    def _event(self, data: dict[str, Any]) -> bytes:
        return sse.event({**data, "usage": None} if self._with_usage else data)
