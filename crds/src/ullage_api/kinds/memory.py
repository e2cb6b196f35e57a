"""Memory in resources and reports: how full it is, who stays in it, and who had to leave."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ullage_api.kinds.base import KubeModel


class MemoryLevel(StrEnum):
    """How full the memory is that models are loaded into."""

    LOW = "Low"
    MODERATE = "Moderate"
    HIGH = "High"
    CRITICAL = "Critical"

    @property
    def rank(self) -> int:
        """Its place from the emptiest, 0, to the fullest."""
        return tuple(MemoryLevel).index(self)


def worst(levels: Iterable[MemoryLevel]) -> MemoryLevel | None:
    """Return the fullest of some levels, or None of none."""
    return max(levels, key=lambda level: level.rank, default=None)


class ResidencyPolicy(StrEnum):
    """When a model is in memory."""

    ON_DEMAND = "OnDemand"
    PRELOAD = "Preload"
    PINNED = "Pinned"


class Priority(StrEnum):
    """Who leaves last, from the first to the last."""

    BATCH = "Batch"
    LOW = "Low"
    NORMAL = "Normal"
    HIGH = "High"
    CRITICAL = "Critical"

    @property
    def rank(self) -> int:
        """Its place from the least, 0, to the highest."""
        return tuple(Priority).index(self)


class WarmTier(StrEnum):
    """Whether host memory keeps something of a model that has left."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class ResidencySettings(KubeModel):
    """How a model shares memory with the others of its pool; a change takes effect at once."""

    policy: Annotated[
        ResidencyPolicy | None,
        Field(
            description=(
                "OnDemand leaves memory when others need it and comes back with the next request; "
                "Preload comes back by itself as soon as there is room; Pinned never leaves. "
                "Unset: OnDemand."
            ),
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        Field(
            description=(
                "Critical, High, Normal, Low or Batch. Lower ones leave memory first, and none "
                "leaves for a model of a lower priority. Requests of a Batch model wait, and make "
                "way, while memory is critical. Unset: Normal."
            ),
        ),
    ] = None
    idle_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=604800,
            description=(
                "Seconds without requests after which the model leaves memory for the warm tier "
                "although nobody needs the room; a Pinned one stays. Unset or 0: never."
            ),
        ),
    ] = None
    unload_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=604800,
            description=(
                "Seconds without requests after which the model leaves memory although nobody "
                "needs the room, and the warm tier too; a Pinned one stays. Unset or 0: never."
            ),
        ),
    ] = None
    warm_tier: Annotated[
        WarmTier | None,
        Field(
            description=(
                "Enabled keeps the model's file and its frequent prompts in host memory when it "
                "leaves, while there is room; Disabled does not. Unset: Enabled."
            ),
        ),
    ] = None

    @property
    def effective_policy(self) -> ResidencyPolicy:
        """The policy, also where none is set."""
        return self.policy or ResidencyPolicy.ON_DEMAND

    @property
    def keeps_warm(self) -> bool:
        """Whether the warm tier is enabled, also where nothing is set."""
        return self.warm_tier is not WarmTier.DISABLED

    @property
    def longest_idle(self) -> int | None:
        """Seconds without requests after which the model leaves by itself; None for never."""
        return min((s for s in (self.idle_seconds, self.unload_seconds) if s), default=None)

    @property
    def is_batch(self) -> bool:
        """Whether requests make way while memory is critical."""
        return self.priority is Priority.BATCH

    @property
    def rank(self) -> int:
        """The rank of the priority, also where none is set."""
        return (self.priority or Priority.NORMAL).rank


class Eviction(KubeModel):
    """One time that a model left memory."""

    time: Annotated[
        str, Field(description="When, in UTC.", json_schema_extra={"format": "date-time"})
    ]
    rule: Annotated[
        str,
        Field(
            max_length=64,
            description=(
                "Why: Demand (another model needed the room), Turn (requests waited for it beside "
                "busy models), Idle (idleSeconds or unloadSeconds had passed) or Level (memory was "
                "nearly full)."
            ),
        ),
    ]
    beneficiary: Annotated[
        str | None,
        Field(alias="for", max_length=253, description="The model that it made room for."),
    ] = None
    bytes: Annotated[int, Field(ge=0, description="What it gave back.")]
