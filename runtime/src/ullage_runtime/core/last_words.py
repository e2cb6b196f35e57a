"""The last lines that an engine's process said, as a message quotes them.

They are the library's, and files have a say in them: so they are few, on one line, and name files
without the folders that these lie in. Secrets are not among them, as an engine's process has none.
"""

import re
from collections.abc import Sequence
from typing import Final

MOST_CHARACTERS: Final = 500

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FOLDERS: Final = re.compile(r"(?<![\w/.:-])(?:/[^\s/:;,'\"()<>]+)+/(?=[^\s/:;,'\"()<>])")
_LOGIN: Final = re.compile(r"(?<=://)[^\s/@]+@")


def plain(line: str) -> str:
    """Return a line without what only terminals and its author's machine know."""
    text = _LOGIN.sub("", _FOLDERS.sub("", _COLOURS.sub("", line)))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def last_words(lines: Sequence[str], besides: str = "") -> str:
    """Return the last lines of those that are not in a text already, `MOST_CHARACTERS` at most."""
    found: list[str] = []
    room = MOST_CHARACTERS
    for line in reversed(lines):
        text = plain(line)
        if not text or text in besides or text in found:
            continue
        if len(text) > room:
            if not found:
                found.append(f"{text[: room - 1]}…")
            break
        found.append(text)
        room -= len(text) + len("; ")
    return "; ".join(reversed(found))
