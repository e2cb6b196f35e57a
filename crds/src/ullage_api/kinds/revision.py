"""Revisions of a model that were tried, and what became of them."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from ullage_api.kinds.base import KubeModel

HISTORY: Final = 10
"""How many revisions of a model are remembered."""


class Outcome(StrEnum):
    """What became of a revision when it was last tried."""

    GOOD = "Good"
    """It answered, and passed all its checks."""
    FAILED = "Failed"
    """It could not be loaded, did not pass its checks, or did worse than the one before."""


class RevisionStatus(KubeModel):
    """One revision that was tried."""

    name: Annotated[
        str, Field(max_length=64, description="Name of the revision, as `rollback-to` wants it.")
    ]
    uri: Annotated[str, Field(max_length=2048, description="Address of the model's file.")]
    sha256: Annotated[str | None, Field(max_length=64, description="SHA-256 of that file.")] = None
    outcome: Annotated[
        Outcome | None,
        Field(description="Good or Failed, when it was last tried; absent while it is tried."),
    ] = None
    reason: Annotated[
        str | None, Field(max_length=64, description="Why it failed, as one CamelCase word.")
    ] = None
    time: Annotated[
        str,
        Field(
            description="When that became so, in UTC.",
            json_schema_extra={"format": "date-time"},
        ),
    ]
