"""The command of a renderer's child: `python -m ullage_runtime.engines.templates.child PARENT`.

It gets one template, then variables after variables, and answers each with a text or a complaint.
Its standard input is the socket; it has no other way to the outside, and no more memory than it
needs. Whoever started it counts the seconds.
"""

import os
import resource
import socket
import sys
from typing import Any, Final

# Jinja would import these when something fails, which is too late when memory is short.
import jinja2.debug
import jinja2.optimizer  # noqa: F401

from ullage_runtime.engines.orphans import die_with_parent
from ullage_runtime.engines.templates import frames
from ullage_runtime.engines.templates.environment import Template, TemplateFailed

MEMORY_BYTES: Final = 384 << 20
"""Address space of the child; it takes 30 MiB of it before it begins."""

EXIT_ORPHANED: Final = 3


def _limit_itself() -> None:
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if sys.platform == "linux":  # others refuse to limit the address space
        limits[resource.RLIMIT_AS] = MEMORY_BYTES
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _compiled(message: dict[str, Any]) -> Template | TemplateFailed:
    try:
        return Template(message["source"], message["specials"])
    except TemplateFailed as failure:
        return failure
    except MemoryError:
        return TemplateFailed("takes too much memory", blames_messages=False)


def _answer(template: Template | TemplateFailed, message: dict[str, Any]) -> bytes:
    try:
        if isinstance(template, TemplateFailed):
            raise template
        return frames.encoded({"text": template.rendered(message["variables"])})
    except TemplateFailed as failure:
        return _complaint(str(failure), blames_messages=failure.blames_messages)
    except MemoryError:
        return _complaint("takes too much memory")
    except UnicodeEncodeError:
        return _complaint("writes halves of characters")


def _complaint(words: str, *, blames_messages: bool = False) -> bytes:
    # What it quotes may be anything, such as halves of characters.
    words = words.encode(errors="replace").decode()
    return frames.encoded({"complaint": words, "blames_messages": blames_messages})


def main() -> None:
    """Render until the socket ends."""
    die_with_parent(int(sys.argv[1]), EXIT_ORPHANED)
    with socket.socket(fileno=os.dup(0)) as connection:
        _limit_itself()
        frames.send(connection, frames.encoded({"ready": True}))
        try:
            template = _compiled(frames.receive(connection))
            while True:  # until the socket ends
                frames.send(connection, _answer(template, frames.receive(connection)))
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main()
