"""The text of a PDF; runs in the reading child."""

import io

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

from ullage_runtime.retrieval.ingest.reading.formats import Unreadable


def text_of(data: bytes, most_characters: int) -> tuple[str, str | None]:
    """Return a file's text, page after page, and its title; raises Unreadable."""
    try:
        return _text_of(data, most_characters)
    except DependencyError as error:
        raise Unreadable("it is encrypted; save it without a password") from error
    except PyPdfError as error:
        raise Unreadable(f"it is no sound PDF: {error}") from error


def _text_of(data: bytes, most_characters: int) -> tuple[str, str | None]:
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it is protected by a password; save it without one")
    pages: list[str] = []
    size = 0
    for page in reader.pages:
        pages.append(page.extract_text().strip())
        size += len(pages[-1])
        if size > most_characters:
            raise Unreadable(f"it has more than {most_characters} characters; split it")
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise Unreadable(
            f"its {len(pages)} pages have no text; scanned pages need text recognition first"
        )
    title = reader.metadata.title if reader.metadata is not None else None
    return text, str(title).strip() or None if title else None
