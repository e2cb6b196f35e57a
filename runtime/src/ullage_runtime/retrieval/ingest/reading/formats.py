"""The formats that documents are read in, and how bytes become text."""

import codecs
import re
from enum import StrEnum
from typing import Final

DOCTYPE_BYTES: Final = 2048
"""Beginning of an HTML file in which its encoding is looked for."""


class Format(StrEnum):
    """What a document is written in."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    JSONL = "jsonl"
    """A document in each line."""


DERIVED: Final = frozenset({Format.HTML, Format.PDF})
"""Formats whose text is not all that they have: the file is kept beside it."""
MEDIA_TYPES: Final = {
    "text/plain": Format.TEXT,
    "text/markdown": Format.MARKDOWN,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "application/pdf": Format.PDF,
    "application/jsonl": Format.JSONL,
    "application/x-ndjson": Format.JSONL,
}
SUFFIXES: Final = {
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".pdf": Format.PDF,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
}
"""Formats by the ends of files' names; others are text, code among them."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META: Final = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)


class Unreadable(Exception):  # noqa: N818 - named after what is so
    """A document cannot be read; the message says why, and what to do."""


def decoded(data: bytes, charset: str | None, form: Format) -> str:
    """Return bytes as text: in the encoding that is given, marked, or UTF-8; raises Unreadable."""
    name = charset or next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if name is None and form is Format.HTML and (meta := _META.search(data[:DOCTYPE_BYTES])):
        name = meta[1].decode("ascii")
    name = name or "utf-8"
    try:
        is_text = codecs.lookup(name)._is_text_encoding  # noqa: SLF001 - as open() does
    except LookupError:
        is_text = False
    if not is_text:
        raise Unreadable(f"its encoding {name[:40]!r} is not known")
    try:
        text = data.decode(name)
    except UnicodeError as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise Unreadable(
            f"it is no text in {name}{where}; say its encoding in the Content-Type, such as "
            "charset=windows-1252"
        ) from error
    if "\0" in text:
        raise Unreadable(
            "it is no text: it has null characters; say what it is in the Content-Type"
        )
    return text
