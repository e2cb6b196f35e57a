"""How a reindex job goes about it: its way, its pace and what the outcome must be like."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ullage_api.kinds.base import KubeModel


class ReindexMode(StrEnum):
    """Which ways a job may take."""

    AUTO = "Auto"
    COPY = "Copy"


class CutoverType(StrEnum):
    """Who says when searches are sent to the target."""

    AUTO = "Auto"
    MANUAL = "Manual"


class OldCollection(StrEnum):
    """What becomes of the data that is not searched any more."""

    RETAIN = "Retain"
    DELETE = "Delete"


class RateSettings(KubeModel):
    """How fast a job may go; it slows down by itself when others would feel it."""

    points_per_second: Annotated[
        int | None,
        Field(ge=1, le=1_000_000, description="Points per second at most; no limit if unset."),
    ] = None
    max_in_flight: Annotated[
        int | None, Field(ge=1, le=64, description="Pages that are copied at once, at most; 4.")
    ] = None


class VerifySettings(KubeModel):
    """What the target must be like before searches are sent to it."""

    sample_size: Annotated[
        int | None,
        Field(ge=0, le=1000, description="Points whose contents and searches are tried; 100."),
    ] = None
    min_recall_percent: Annotated[
        int | None,
        Field(
            ge=0,
            le=100,
            description="Share of the ten nearest points that searches must find at least; 90.",
        ),
    ] = None
    max_failed: Annotated[
        int | None,
        Field(
            ge=0,
            le=1_000_000_000,
            description="Points that may be left without what could not be brought over; 0.",
        ),
    ] = None
