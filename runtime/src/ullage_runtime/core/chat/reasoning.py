"""Reasoning: the part of an answer in which a model thinks, between two markers at its beginning.

The markers are those that models are trained with; which of them a model uses shows in its chat
template, or in its vocabulary. A template may put the first one into the prompt already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True)
class Markers:
    """What a model's reasoning stands between."""

    begin: str
    end: str


KNOWN: Final = (
    Markers("<think>", "</think>"),
    Markers("<|START_THINKING|>", "<|END_THINKING|>"),
    Markers("[THINK]", "[/THINK]"),
    Markers("<seed:think>", "</seed:think>"),
    Markers("<thinking>", "</thinking>"),
    Markers("<reasoning>", "</reasoning>"),
)
"""DeepSeek's and Qwen's, Cohere's, Mistral's, ByteDance's, and two that others use."""


def markers_of(template: str, is_token: Callable[[str], bool]) -> Markers | None:
    """Return a model's markers, or None for a model that does not think."""
    for markers in KNOWN:
        if markers.end in template or (is_token(markers.begin) and is_token(markers.end)):
            return markers
    return None


def opens(prompt: str, markers: Markers) -> bool:
    """Tell whether a prompt ends where reasoning has begun."""
    return prompt.rstrip().endswith(markers.begin)


class Phase(Enum):
    """Where in an answer its end is."""

    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


class Splitter:
    """Splits a text that comes in parts; how it is cut into parts changes nothing.

    White space around the reasoning belongs to neither part.
    """

    def __init__(self, markers: Markers, *, opened: bool = False) -> None:
        self._markers = markers
        self._opened = opened
        self._held = ""
        self._begun = False
        self.phase = Phase.BEFORE

    @property
    def thinks(self) -> bool:
        """Whether the text that comes next is reasoning, as far as is known."""
        return self.phase is Phase.INSIDE or (self._opened and self.phase is Phase.BEFORE)

    def feed(self, text: str) -> tuple[str, str]:
        """Return the reasoning and the content that a part of the text makes known."""
        self._held += text
        if self.phase is Phase.BEFORE:
            self._decide()
        reasoning = self._inside() if self.phase is Phase.INSIDE else ""
        content = self._after() if self.phase is Phase.AFTER else ""
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """Return what was held back, now that nothing follows."""
        held, self._held = self._held, ""
        if self.thinks:
            return held.rstrip(), ""
        return "", "" if self.phase is Phase.AFTER and not self._begun else held

    def _decide(self) -> None:
        """Find out whether the text begins with reasoning."""
        begin, text = self._markers.begin, self._held.lstrip()
        if text.startswith(begin):
            self.phase, self._held = Phase.INSIDE, text[len(begin) :]
        elif text and not begin.startswith(text):
            self.phase = Phase.INSIDE if self._opened else Phase.AFTER
            self._begun = not self._opened

    def _inside(self) -> str:
        if not self._begun:
            self._held = self._held.lstrip()
        end = self._markers.end
        reasoning, found, rest = self._held.partition(end)
        if found:
            self.phase, self._held, self._begun = Phase.AFTER, rest, False
            return reasoning.rstrip()
        sure = len(self._held) - overlap(self._held, end)
        sure = len(self._held[:sure].rstrip())
        shown, self._held = self._held[:sure], self._held[sure:]
        self._begun = self._begun or bool(shown)
        return shown

    def _after(self) -> str:
        content = self._held if self._begun else self._held.lstrip()
        self._held = ""
        self._begun = self._begun or bool(content)
        return content


def overlap(text: str, marker: str) -> int:
    """Return the length of the longest end of a text that begins a marker."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
