"""Calls of tools in the text of an answer, found as it comes."""

from collections.abc import Collection
from dataclasses import replace
from enum import Enum
from typing import Final

from ullage_runtime.core.chat.formats import ToolFormat
from ullage_runtime.core.chat.reasoning import overlap
from ullage_runtime.core.chat.scanner import BrokenCall, CallScanner, is_object
from ullage_runtime.core.domain import CallDelta

_SPACE: Final = " \t\r\n"


class _State(Enum):
    TEXT = "text"
    BEFORE_CALL = "before a call"
    IN_CALL = "in a call"
    AFTER_CALL = "after a call"


class CallParser:
    """Tells calls from content in a text that comes in parts; how it is cut changes nothing.

    What looks like a call and is none, because it names no tool that there is or because it is no
    JSON, is content. `trusted` says that a grammar sees to it that a call which has named its tool
    becomes a valid one: its arguments are then passed on as they come, else once they are complete.
    """

    def __init__(self, form: ToolFormat, names: Collection[str], *, trusted: bool = False) -> None:
        self._format = form
        self._names = frozenset(names)
        self.trusted = trusted
        self.count = 0
        """Calls that have been found."""
        self.call_text: str | None = None
        """What has come after the first call's marker, or None before it."""
        self._state = _State.TEXT
        self._scanner = CallScanner()
        self._text = ""
        """The end of the content, which may still turn out to be a marker, or space before one."""
        self._raw = ""
        """What becomes content if what goes on is no call."""
        self._told = -1
        """Characters of this call's arguments that were passed on; -1: not even its name."""
        self._in_list = False
        self._is_start = True
        self._content: list[str] = []
        self._calls: list[CallDelta] = []

    def feed(self, text: str) -> tuple[str, tuple[CallDelta, ...]]:
        """Return the content and the calls that a part of the text makes known."""
        for character in text:
            if self.call_text is not None:
                self.call_text += character
            match self._state:
                case _State.TEXT:
                    self._in_text(character)
                case _State.BEFORE_CALL:
                    self._before_call(character)
                case _State.IN_CALL:
                    self._in_call(character)
                case _State.AFTER_CALL:
                    self._after_call(character)
        return self._released()

    def finish(self) -> tuple[str, tuple[CallDelta, ...]]:
        """Return what was held back, now that nothing follows."""
        if self._state in {_State.BEFORE_CALL, _State.IN_CALL}:
            self._give_up()
        if self._state is _State.TEXT:
            self._show(self._text.rstrip() if self.count else self._text)
            self._text = ""
        return self._released()

    def _released(self) -> tuple[str, tuple[CallDelta, ...]]:
        content, calls = "".join(self._content), tuple(self._calls)
        self._content.clear()
        self._calls.clear()
        return content, calls

    def _show(self, text: str) -> None:
        if text:
            self._content.append(text)
            self._is_start = False

    def _in_text(self, character: str) -> None:
        form = self._format
        if form.is_bare and self._is_start and character == "{" and not self._text.strip():
            self._raw, self._text, self.call_text = self._text, "", "{"
            self._begin(character)
            return
        self._text += character
        if self._text.endswith(form.begin):
            self._raw, self._text = self._text, ""
            self._state, self._is_start = _State.BEFORE_CALL, False
            if self.call_text is None:
                self.call_text = ""
            return
        sure = len(self._text) - overlap(self._text, form.begin)
        shown = self._text[:sure].rstrip()
        self._show(shown)
        self._text = self._text[len(shown) :]

    def _before_call(self, character: str) -> None:
        if character == "{":
            self._begin(character)
            return
        self._raw += character
        if character == "[" and self._format.is_list and not self._in_list:
            self._in_list = True
        elif character not in _SPACE:
            self._give_up()

    def _begin(self, character: str) -> None:
        self._state, self._scanner, self._told = _State.IN_CALL, CallScanner(), -1
        self._in_call(character)

    def _in_call(self, character: str) -> None:
        self._raw += character
        scanner = self._scanner
        try:
            scanner.feed(character)
        except BrokenCall:
            self._give_up()
            return
        unknown = scanner.name is not None and scanner.name not in self._names
        if unknown or (self._format.is_bare and scanner.is_foreign):
            self._give_up()
            return
        if self.trusted and scanner.name is not None:
            self._tell(scanner.name)
        if scanner.done:
            self._complete(scanner)

    def _complete(self, scanner: CallScanner) -> None:
        if self._told < 0:
            if not is_object(scanner.arguments or "{}"):
                self._give_up()
                return
            self._tell(scanner.name or "")
        if not scanner.arguments:
            self._add(CallDelta(self.count - 1, arguments="{}"))
        self._state, self._raw = _State.AFTER_CALL, ""

    def _tell(self, name: str) -> None:
        """Pass on what is known of a call, which then cannot become content any more."""
        if self._told < 0:
            self._add(CallDelta(self.count, name=name))
            self.count += 1
            self._told = 0
        arguments = self._scanner.arguments[self._told :]
        if arguments:
            self._add(CallDelta(self.count - 1, arguments=arguments))
            self._told += len(arguments)
        self._raw = ""

    def _add(self, delta: CallDelta) -> None:
        last = self._calls[-1] if self._calls else None
        if last is not None and last.index == delta.index:
            self._calls[-1] = replace(last, arguments=last.arguments + delta.arguments)
        else:
            self._calls.append(delta)

    def _after_call(self, character: str) -> None:
        form = self._format
        self._raw = (self._raw + character).lstrip()
        if not self._raw:
            return
        if self._raw == ("," if self._in_list else form.separator):
            self._state, self._raw, self._told = _State.BEFORE_CALL, "", -1
        elif self._in_list and self._raw == "]":
            self._state, self._raw, self._in_list = _State.TEXT, "", False
        elif form.is_bare and self._raw == "{":
            self._raw = ""
            self._begin(character)
        elif self._raw == form.end:
            self._state, self._raw = _State.TEXT, ""
        elif not form.end.startswith(self._raw):
            self._give_up()

    def _give_up(self) -> None:
        """Make content of what looked like a call; its last character may begin something else."""
        raw, last = self._raw[:-1], self._raw[-1:]
        self._state, self._raw, self._told, self._in_list = _State.TEXT, "", -1, False
        self._show(raw)
        if last:
            self._in_text(last)
