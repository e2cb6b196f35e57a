"""Patterns of JSON schemas, before the converter sees them.

It reads a small part of regular expressions. Of the rest it makes a grammar that means something
else, or one of strings that are no JSON, or it does not end; a closing bracket by itself is enough.
"""

from typing import Final

MAX_REPETITIONS: Final = 256
"""How often a grammar may repeat something, and how long a pattern may be."""

_ESCAPED: Final = tuple("[]()|{}*+?.^$/-")


def complaint_of(pattern: object) -> str | None:
    """Return what is wrong with a pattern, or None."""
    if not isinstance(pattern, str) or len(pattern) > MAX_REPETITIONS:
        return f"must have {MAX_REPETITIONS} characters at most"
    if any(character < " " or character in '"\x7f' for character in pattern):
        return "has quotes or control characters"
    index = 0
    while index < len(pattern):
        end, complaint = _piece(pattern, index)
        if complaint is not None:
            return complaint
        index = end + 1
    return None


def _piece(pattern: str, start: int) -> tuple[int, str | None]:
    """Return where the piece that begins here ends, and what is wrong with it."""
    character = pattern[start]
    if character == "\\":
        known = pattern[start + 1 : start + 2] in _ESCAPED
        return start + 1, None if known else "has escapes that are not known"
    if character in "]}":
        return start, "closes what is not open"
    if character not in "[{":
        return start, None
    end = pattern.find("]" if character == "[" else "}", start)
    if end < 0:
        return start, "leaves a bracket open"
    inside = pattern[start + 1 : end]
    return end, _class_complaint(inside) if character == "[" else _repetition_complaint(inside)


def _class_complaint(inside: str) -> str | None:
    odd = inside.startswith("^") or "\\" in inside
    return "has a class that begins with ^ or has escapes" if odd else None


def _repetition_complaint(inside: str) -> str | None:
    counts = (count.strip() for count in inside.split(","))
    many = any(int(count) > MAX_REPETITIONS for count in counts if count.isdecimal())
    return "repeats too often" if many else None
