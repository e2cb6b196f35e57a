"""A process that reads one document: `… FORMAT CHARSET PARENT`, the file on its standard input.

It writes one line of JSON: the text and the title, or what is wrong. Whoever started it counts the
seconds; it limits its own memory, processors and files.
"""

import json
import resource
import sys
from typing import Final

from ullage_runtime.engines.orphans import die_with_parent
from ullage_runtime.retrieval.ingest.reading.formats import Format, Unreadable, decoded

MEMORY_BYTES: Final = 1 << 30
CPU_SECONDS: Final = 60
MOST_CHARACTERS: Final = 32 << 20
EXIT_ORPHANED: Final = 3


def _limit_itself() -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CPU: CPU_SECONDS,
    }
    if sys.platform == "linux":  # others refuse to limit the address space
        limits[resource.RLIMIT_AS] = MEMORY_BYTES
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _read(form: Format, charset: str | None, data: bytes) -> dict[str, str | None]:
    try:
        if form is Format.PDF:
            from ullage_runtime.retrieval.ingest.reading import pdf

            text, title = pdf.text_of(data, MOST_CHARACTERS)
        else:
            from ullage_runtime.retrieval.ingest.reading import html

            text, title = html.text_of(decoded(data, charset, form))
    except Unreadable as error:
        return {"complaint": str(error)}
    except MemoryError:
        return {"complaint": f"it takes more than {MEMORY_BYTES >> 20} MiB of memory to read"}
    except RecursionError:
        return {"complaint": "it is nested too deeply"}
    except Exception as error:  # noqa: BLE001 - parsers raise anything on broken files
        return {"complaint": f"it cannot be read: {type(error).__name__}: {error}"[:400]}
    if len(text) > MOST_CHARACTERS:
        return {"complaint": f"it has more than {MOST_CHARACTERS} characters; split it"}
    return {"text": text, "title": title}


def main(form: str, charset: str, parent: str) -> None:
    """Read one document."""
    die_with_parent(int(parent), EXIT_ORPHANED)
    data = sys.stdin.buffer.read()
    _limit_itself()
    answer = json.dumps(_read(Format(form), charset or None, data))
    sys.stdout.write(f"{answer}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
