"""ChatStream: an answer's text, told apart as it comes into reasoning, content and calls."""

from dataclasses import dataclass

from ullage_runtime.core.chat.calls import CallParser
from ullage_runtime.core.chat.reasoning import Splitter
from ullage_runtime.core.domain import CallDelta


@dataclass(frozen=True, slots=True)
class Delta:
    """What a part of the text makes known."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()

    def __add__(self, other: "Delta") -> "Delta":
        return Delta(
            self.content + other.content,
            self.reasoning + other.reasoning,
            (*self.calls, *other.calls),
        )

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning or self.calls)


class ChatStream:
    """Both parsers, one behind the other; either may be missing."""

    def __init__(self, splitter: Splitter | None, calls: CallParser | None) -> None:
        self._splitter = splitter
        self.calls = calls
        self._content = ""

    @property
    def thinks(self) -> bool:
        """Whether what comes next is reasoning, as far as is known."""
        return self._splitter is not None and self._splitter.thinks

    @property
    def content(self) -> str:
        """The text so far that is not reasoning, calls included."""
        return self._content

    def feed(self, text: str) -> Delta:
        """Return what a part of the text makes known."""
        reasoning = ""
        if self._splitter is not None:
            reasoning, text = self._splitter.feed(text)
        return self._delta(reasoning, text)

    def finish(self) -> Delta:
        """Return what was held back, now that nothing follows."""
        reasoning = text = ""
        if self._splitter is not None:
            reasoning, text = self._splitter.finish()
        delta = self._delta(reasoning, text)
        if self.calls is None:
            return delta
        content, calls = self.calls.finish()
        return delta + Delta(content, calls=calls)

    def _delta(self, reasoning: str, text: str) -> Delta:
        self._content += text
        if self.calls is None:
            return Delta(text, reasoning)
        content, calls = self.calls.feed(text)
        return Delta(content, reasoning, calls)
