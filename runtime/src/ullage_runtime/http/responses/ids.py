"""The names of responses and of their items: random, and telling which pod keeps them since when.

`resp_` · 4 hexadecimal digits of the pod's ordinal · 8 of the second it was made in · 24 random
ones. Any pod of the pool so knows whom to ask for it, and can tell an expired response from one
that never was.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Final

RESPONSE: Final = "resp"
MESSAGE: Final = "msg"
CALL: Final = "fc"
CALL_OUTPUT: Final = "fco"
REASONING: Final = "rs"
FILE_SEARCH: Final = "fs"

_SHAPE = re.compile(r"^[a-z]+_([0-9a-f]{4})([0-9a-f]{8})[0-9a-f]{24}$")


@dataclass(frozen=True, slots=True)
class Origin:
    """What an id tells."""

    ordinal: int
    """The pod that made it, and that keeps what it names."""
    created: int
    """Seconds since the epoch."""


def new_id(kind: str, ordinal: int, created: float) -> str:
    """Return a new id that nobody can guess."""
    return f"{kind}_{ordinal & 0xFFFF:04x}{int(created) & 0xFFFFFFFF:08x}{secrets.token_hex(12)}"


def origin_of(name: str) -> Origin | None:
    """Return what an id tells, or None when it is none of ours."""
    match = _SHAPE.match(name)
    return None if match is None else Origin(int(match.group(1), 16), int(match.group(2), 16))
