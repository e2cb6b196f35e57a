"""A response as it grows: what a model makes becomes items, and each change becomes an event.

An answer that is not streamed goes the same way, and its events are dropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ullage_runtime.core.domain import FinishReason, Usage
from ullage_runtime.core.errors import ServingError
from ullage_runtime.http.responses import ids
from ullage_runtime.http.responses.items import output_text
from ullage_runtime.http.responses.store import Item

Event = dict[str, Any]
"""One event of a stream; its type is its `type`."""

Cite = Callable[[str], list[dict[str, Any]]]
"""Returns the citations of a text."""

_DELTAS: Final = {
    "output_text": "response.output_text",
    "reasoning_text": "response.reasoning_text",
}
_CODES: Final = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
"""What OpenAI's closed set of codes has for a status; everything else is `server_error`."""


@dataclass(slots=True)
class _Open:
    """The item that is being written."""

    item: Item
    index: int
    kind: str
    """The type of its one part, or of the item itself when it has none."""
    cite: Cite
    texts: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def part(self) -> dict[str, Any]:
        return _part(self.kind, self.text, self.logprobs, self.cite(self.text))

    def whole(self, status: str) -> Item:
        """Return the item as it is in the end."""
        if self.kind in _DELTAS:
            return {**self.item, "status": status, "content": [self.part]}
        return {**self.item, "status": status, "arguments": self.text}


class Turn:
    """One response, from its first event to its last.

    `head` is the response object as far as the request decides it.
    """

    def __init__(
        self,
        head: dict[str, Any],
        new_id: Callable[[str], str],
        now: Callable[[], float],
        cite: Cite | None = None,
    ) -> None:
        self._cite: Cite = cite or (lambda _: [])
        self._head = head
        self._new_id = new_id
        self._now = now
        self._events = 0
        self._output: list[Item] = []
        self._open: _Open | None = None
        self.response: dict[str, Any] = {**head, "status": "in_progress"}
        """The response object as of now."""

    def begin(self) -> list[Event]:
        """Return the events that precede everything."""
        return [
            self._event("response.created", response=self.response),
            self._event("response.in_progress", response=self.response),
        ]

    def search(self, searched: Item) -> list[Event]:
        """Tell of a search that has been made."""
        item = {"id": self._new_id(ids.FILE_SEARCH), **searched}
        index = len(self._output)
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": index}
        begun = {**item, "status": "in_progress", "results": None}
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.file_search_call.in_progress", **place),
            self._event("response.file_search_call.searching", **place),
            self._event("response.file_search_call.completed", **place),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def say(self, text: str, logprobs: Sequence[Any] = ()) -> list[Event]:
        """Add to what is said."""
        item = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
        opening = self._opened("output_text", ids.MESSAGE, item)
        return [*opening, *self._added(text, logprobs=list(logprobs))]

    def think(self, text: str) -> list[Event]:
        """Add to what is thought."""
        item = {"type": "reasoning", "status": "in_progress", "summary": [], "content": []}
        opening = self._opened("reasoning_text", ids.REASONING, item)
        return [*opening, *self._added(text)]

    def call(self, call_id: str, name: str) -> list[Event]:
        """Begin the call of a function."""
        item = {
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        return [*self._closed("completed"), *self._opened("function_call", ids.CALL, item)]

    def argue(self, text: str) -> list[Event]:
        """Add to the arguments of the call that was begun last."""
        return self._added(text)

    def end(self, finish: FinishReason, usage: Usage) -> list[Event]:
        """Complete the response, whole or cut short."""
        is_whole = finish is not FinishReason.LENGTH
        status = "completed" if is_whole else "incomplete"
        # A model that has nothing to say has said nothing: clients look for a message.
        has_said = self._open or any(i["type"] != "file_search_call" for i in self._output)
        events = [] if has_said else self.say("")
        events += self._closed(status)
        self._settle(status, usage)
        if is_whole:
            self.response["completed_at"] = int(self._now())
        else:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        return events

    def last(self) -> Event:
        """Return the event that ends a stream, with the response as it is."""
        return self._event(f"response.{self.response['status']}", response=self.response)

    def fail(self, error: ServingError, usage: Usage) -> None:
        """End the response with an error."""
        if self._open is not None:
            self._output.append(self._open.whole("incomplete"))
        self._settle("failed", usage)
        self.response["error"] = {
            "code": _CODES.get(error.status, "server_error"),
            "message": error.message,
            "param": error.param,
            "type": error.code,
        }

    def _settle(self, status: str, usage: Usage) -> None:
        self.response = {
            **self._head,
            "status": status,
            "output": list(self._output),
            "usage": usage_object(usage),
        }

    def _opened(self, kind: str, id_kind: str, item: Item) -> list[Event]:
        """Open an item, unless one of its kind is open already."""
        if self._open is not None and self._open.kind == kind:
            return []
        events = self._closed("completed")
        item = {"id": self._new_id(id_kind), **item}
        self._open = _Open(item, len(self._output), kind, self._cite)
        events.append(
            self._event("response.output_item.added", output_index=self._open.index, item=item)
        )
        if kind in _DELTAS:
            events.append(self._about("response.content_part.added", part=_part(kind, "")))
        return events

    def _added(self, text: str, **more: Any) -> list[Event]:
        opened = self._current()
        opened.texts.append(text)
        opened.logprobs += more.get("logprobs", [])
        if not text and not more.get("logprobs"):
            return []
        name = _DELTAS.get(opened.kind, "response.function_call_arguments")
        return [self._about(f"{name}.delta", delta=text, **more)]

    def _closed(self, status: str) -> list[Event]:
        if self._open is None:
            return []
        opened, events = self._open, []
        item = opened.whole(status)
        if opened.kind in _DELTAS:
            more = {"logprobs": opened.logprobs} if opened.kind == "output_text" else {}
            events += [
                self._about(
                    "response.output_text.annotation.added", annotation_index=i, annotation=each
                )
                for i, each in enumerate(opened.part.get("annotations", ()))
            ]
            events.append(self._about(f"{_DELTAS[opened.kind]}.done", text=opened.text, **more))
            events.append(self._about("response.content_part.done", part=opened.part))
        else:
            said = {"name": item["name"], "arguments": opened.text}
            events.append(self._about("response.function_call_arguments.done", **said))
        events.append(
            self._event("response.output_item.done", output_index=opened.index, item=item)
        )
        self._output.append(item)
        self._open = None
        return events

    def _current(self) -> _Open:
        if self._open is None:
            raise AssertionError("nothing is being written")
        return self._open

    def _about(self, kind: str, **members: Any) -> Event:
        """Return an event about the open item, or about its one part."""
        opened = self._current()
        place: dict[str, Any] = {"item_id": opened.item["id"], "output_index": opened.index}
        if opened.kind in _DELTAS:
            place["content_index"] = 0
        return self._event(kind, **place, **members)

    def _event(self, kind: str, **members: Any) -> Event:
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **members}


def _part(
    kind: str, text: str, logprobs: Sequence[Any] = (), annotations: Sequence[Any] = ()
) -> dict[str, Any]:
    if kind == "output_text":
        return output_text(text, logprobs, annotations)
    return {"type": kind, "text": text}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the usage object of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
