"""How far a reindex job has come, and which way it takes."""

from enum import StrEnum
from typing import Final


class ReindexPlan(StrEnum):
    """The way from what a collection has to what its spec wants."""

    ALREADY_CURRENT = "AlreadyCurrent"
    """There is nothing to do."""
    IN_PLACE = "InPlace"
    """The index is built anew with other settings, over the vectors that there are."""
    COPY = "Copy"
    """Points are copied as they are into a collection that is laid out as wanted."""
    REEMBED = "Reembed"
    """Points are copied, with vectors that a model makes of their texts."""
    RECHUNK = "Rechunk"
    """Documents are cut and embedded again from their originals, one after the other."""

    @property
    def copies(self) -> bool:
        """Whether it fills another collection, to which searches then switch."""
        return self in {ReindexPlan.COPY, ReindexPlan.REEMBED}

    @property
    def embeds(self) -> bool:
        """Whether a model has to embed texts for it."""
        return self in {ReindexPlan.REEMBED, ReindexPlan.RECHUNK}


class ReindexPhase(StrEnum):
    """What a reindex job is doing."""

    PENDING = "Pending"
    """It is not yet known what there is to do."""
    QUEUED = "Queued"
    """Others go first."""
    PREPARING = "Preparing"
    """The target is being made."""
    DUAL_WRITING = "DualWriting"
    """What is written from now on goes to the target too; who writes is being told."""
    COPYING = "Copying"
    """What was there before is being copied."""
    CATCHING_UP = "CatchingUp"
    """What was written meanwhile is being applied to the target."""
    INDEXING = "Indexing"
    """The store builds the target's index."""
    VERIFYING = "Verifying"
    """The target is held against what it was copied from."""
    READY_TO_SWITCH = "ReadyToSwitch"
    """The target may be searched; a manual cutover waits for its approval here."""
    SWITCHING = "Switching"
    """Searches are being sent to the target, in one step."""
    SOAKING = "Soaking"
    """The target is searched, and the old collection is kept up to date for a rollback."""
    CLEANING = "Cleaning"
    """What nobody reads or writes any more is being removed."""
    SUCCEEDED = "Succeeded"
    """The collection is as its spec wanted it."""
    PAUSED = "Paused"
    """It is suspended; the target is kept up to date."""
    ROLLING_BACK = "RollingBack"
    """What was searched before is being searched again."""
    CANCELLING = "Cancelling"
    """The target is being given up."""
    CANCELLED = "Cancelled"
    """It was given up or rolled back as somebody wished; searches were never without an answer."""
    FAILED = "Failed"
    """It could not be done; what was searched before still is."""

    @property
    def is_over(self) -> bool:
        """Whether the job is finished, well or not."""
        return self in FINISHED_PHASES


FINISHED_PHASES: Final = frozenset(
    {ReindexPhase.SUCCEEDED, ReindexPhase.CANCELLED, ReindexPhase.FAILED}
)
