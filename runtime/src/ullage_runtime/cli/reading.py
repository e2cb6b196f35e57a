"""Files as documents: what `ullage ingest` sends of a path."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ullage_runtime.cli.console import USAGE, CliError

SUFFIXES: Final = frozenset(
    [
        ".adoc",
        ".bash",
        ".c",
        ".cfg",
        ".cpp",
        ".cs",
        ".css",
        ".csv",
        ".go",
        ".h",
        ".hpp",
        ".ini",
        ".java",
        ".js",
        ".json",
        ".jsx",
        ".kt",
        ".lua",
        ".markdown",
        ".md",
        ".mdx",
        ".org",
        ".php",
        ".pl",
        ".py",
        ".r",
        ".rb",
        ".rs",
        ".rst",
        ".scala",
        ".sh",
        ".sql",
        ".swift",
        ".tex",
        ".text",
        ".tf",
        ".toml",
        ".ts",
        ".tsx",
        ".txt",
        ".xml",
        ".yaml",
        ".yml",
    ]
)
"""Files of a folder that are taken for text; one that is named itself may be called anything."""

UPLOADED: Final = {
    ".htm": "text/html",
    ".html": "text/html",
    ".xhtml": "text/html",
    ".pdf": "application/pdf",
}
"""Files that the server reads, and their media types."""

BATCH_DOCUMENTS: Final = 200
BATCH_CHARACTERS: Final = 1 << 20
"""Size of a request: documents are sent while others are worked on, and no request is large."""


@dataclass(frozen=True, slots=True)
class Source:
    """One document as it is sent."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the body's entry."""
        return {"id": self.id, "text": self.text, "metadata": self.metadata}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it is sent, for the server to read."""

    path: pathlib.Path

    @property
    def id(self) -> str:
        """The document's id."""
        return self.path.as_posix()

    @property
    def media_type(self) -> str:
        """What it is."""
        return UPLOADED[self.path.suffix.lower()]


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that is no document."""

    path: pathlib.Path
    why: str


def documents(paths: Sequence[pathlib.Path]) -> Iterator[Source | Upload | Unread]:
    """Yield the documents of files and folders, and what could not be read; raises CliError.

    A text is one document, called as its path; a `.jsonl` file has one in each line: an object with
    `id`, `text` and, if it likes, `metadata`.
    """
    for path in paths:
        if not path.exists():
            raise CliError(f"{path}: there is no such file or folder", code=USAGE)
        for file in [path] if path.is_file() else _beneath(path):
            if file.suffix == ".jsonl":
                yield from _lines(file)
            elif file.suffix.lower() in UPLOADED:
                yield Upload(file)
            else:
                yield _whole(file)


def batches(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Yield documents in requests of moderate size; a large one is a request by itself."""
    batch: list[Source] = []
    size = 0
    for source in sources:
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(source.text) > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += len(source.text)
    if batch:
        yield batch


def _beneath(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the text files of a folder in order; what is hidden is left alone."""
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or not file.is_file():
            continue
        suffix = file.suffix.lower()
        if suffix in SUFFIXES or suffix in UPLOADED or suffix == ".jsonl":
            yield file


def _whole(file: pathlib.Path) -> Source | Unread:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return Unread(file, "it is no text in UTF-8")
    except OSError as error:
        return Unread(file, error.strerror or str(error))
    if not text.strip():
        return Unread(file, "it is empty")
    return Source(file.as_posix(), text, {"source": file.as_posix()})


def _lines(file: pathlib.Path) -> Iterator[Source]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _entry(f"{file}:{number}", line)
    except (UnicodeDecodeError, OSError) as error:
        raise CliError(f"{file}: {error}") from error


def _entry(where: str, line: str) -> Source:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise CliError(f"{where}: no JSON: {error}") from error
    if not isinstance(found, dict) or unknown_shape(found):
        raise CliError(
            f"{where}: a line must be an object with texts `id` and `text`, and perhaps an object "
            "`metadata`"
        )
    return Source(found["id"], found["text"], found.get("metadata") or {})


def unknown_shape(found: dict[str, Any]) -> bool:
    """Whether an object is no document."""
    return (
        not isinstance(found.get("id"), str)
        or not isinstance(found.get("text"), str)
        or not isinstance(found.get("metadata") or {}, dict)
    )
