"""The messages of the live view, and the cursor with which a viewer goes on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.ops.memory_objects import MemoryDecision


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a viewer has seen: which process, its report's sequence, its latest decision."""

    boot: str
    sequence: int
    decision: int

    def __str__(self) -> str:
        return f"{self.boot}.{self.sequence}.{self.decision}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that a viewer gives back; raises InvalidRequest."""
        boot, *numbers = text.rsplit(".", 2)
        if not boot or len(numbers) != 2 or not all(_is_number(n) for n in numbers):  # noqa: PLR2004
            raise InvalidRequest(
                "after: must be the `cursor` of a message that was received here", param="after"
            )
        sequence, decision = map(int, numbers)
        return cls(boot, sequence, decision)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20  # noqa: PLR2004 - 64 bits


class StatusMessage(BaseModel):
    """One message of `/ws/status`.

    `status.state` has everything and comes first. `status.changes` has of each device and model
    that changed its `id` and the fields that did, all fields of one that is new. A
    `status.heartbeat` has nothing to tell.
    """

    object: Literal["status.state", "status.changes", "status.heartbeat"]
    cursor: Annotated[
        str, Field(description="Connect again with `?after=` this to go on from here.")
    ]
    time: Annotated[datetime, Field(description="When it was so, in UTC.")]
    pod: str
    level: MemoryLevel | None
    devices: Annotated[list[dict[str, Any]], Field(description="As in `GET /memory/stats`.")]
    models: Annotated[list[dict[str, Any]], Field(description="As in `GET /memory/models`.")]
    gone: Annotated[list[str], Field(description="Models that are no more.")]
    decisions: Annotated[
        list[MemoryDecision],
        Field(description="Those not told before, newest first; as in `GET /memory/evictions`."),
    ]
