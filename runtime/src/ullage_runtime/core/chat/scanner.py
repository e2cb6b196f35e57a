"""One call of a tool, written as a JSON object, read character by character.

It is read as it comes, so that arguments can be passed on before they are complete. What it lets
through is not yet valid JSON within the arguments; that is for whoever has the whole of it.
"""

import json
from typing import Final

NAME: Final = "name"
ARGUMENTS: Final = ("arguments", "parameters")
"""Models call them one or the other."""
KNOWN_KEYS: Final = frozenset((NAME, *ARGUMENTS, "type", "id", "function"))

_SPACE: Final = " \t\r\n"
_CLOSING: Final = {"{": "}", "[": "]"}


class BrokenCall(ValueError):  # noqa: N818 - what it is
    """What came is no call."""


class CallScanner:
    """Reads an object with a name and arguments; `feed` raises BrokenCall."""

    def __init__(self) -> None:
        self.name: str | None = None
        """Known as soon as it has been read."""
        self.arguments = ""
        """The text of the arguments, as far as it has been read."""
        self.done = False
        self._key: str | None = None
        self._value = ""
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False
        self._expects = "{"
        """What comes next, outside of a value: `{`, a key `"`, `:`, a value `v`, or `,` or `}`."""

    def feed(self, character: str) -> None:
        """Read a character."""
        if self._value:
            self._go_on(character)
        elif character not in _SPACE:
            self._begin(character)

    def _begin(self, character: str) -> None:
        match self._expects, character:
            case "{", "{":
                self._expects = '"}'
            case ('"}' | '"', '"') | ("v", _):
                self._take(character)
            case ":", ":":
                self._expects = "v"
            case ",", ",":
                self._expects = '"'
            case ('"}' | ",", "}"):
                self._end()
            case _:
                raise BrokenCall(f"{character!r} is not expected")

    def _take(self, character: str) -> None:
        """Begin a key or a value."""
        if self._key in ARGUMENTS and character != "{":
            raise BrokenCall("arguments are no object")
        self._value = character
        self._in_string = character == '"'
        self._open = [_CLOSING[character]] if character in _CLOSING else []
        if not self._in_string and not self._open and not (character.isalnum() or character == "-"):
            raise BrokenCall(f"{character!r} is not expected")
        if self._key in ARGUMENTS:
            self.arguments = character

    def _go_on(self, character: str) -> None:
        """Read on in a key or a value."""
        if not self._in_string and not self._open:
            if character in ",}" or character in _SPACE:  # a number, true, false or null
                self._complete()
                self.feed(character)
                return
            if not (character.isalnum() or character in "+-."):
                raise BrokenCall(f"{character!r} is not expected")
        self._value += character
        if self._key in ARGUMENTS:
            self.arguments += character
        if self._in_string:
            self._in_text(character)
        elif character == '"':
            self._in_string = True
        elif character in _CLOSING:
            self._open.append(_CLOSING[character])
        elif character in "]}" and character != self._open.pop():
            raise BrokenCall("brackets do not match")
        if not self._in_string and not self._open and character in '"]}':
            self._complete()

    def _in_text(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False

    def _complete(self) -> None:
        """Take note of a key or a value that has been read."""
        value, self._value = self._value, ""
        if self._expects != "v":
            self._key, self._expects = _text(value), ":"
            if self._key in ARGUMENTS and self.arguments:
                raise BrokenCall("it has arguments twice")
            if self._key == NAME and self.name is not None:
                raise BrokenCall("it has two names")
            return
        if self._key == NAME:
            self.name = _text(value)
        self._key, self._expects = None, ","

    def _end(self) -> None:
        if self.name is None:
            raise BrokenCall("it has no name")
        self.done = True

    @property
    def is_foreign(self) -> bool:
        """Whether it has a member that calls do not have."""
        return self._key is not None and self._key not in KNOWN_KEYS


def _text(value: str) -> str:
    try:
        text = json.loads(value)
    except ValueError as error:
        raise BrokenCall(f"not JSON: {error}") from error
    if not isinstance(text, str):
        raise BrokenCall("a name is no text")
    return text


def is_object(text: str) -> bool:
    """Tell whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
