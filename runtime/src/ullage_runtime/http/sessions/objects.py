"""The answers of the session endpoints."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field


class SessionObject(BaseModel):
    """A session as it stands."""

    id: str
    object: Literal["session"] = "session"
    collection: Annotated[str, Field(description="What it searches.")]
    created: Annotated[int, Field(description="Seconds since 1970.")]
    expires: Annotated[int, Field(description="When it is deleted, unless it is used before.")]
    turns: Annotated[int, Field(description="Turns that it remembers.")]


class TurnObject(BaseModel):
    """What somebody said."""

    role: str
    text: str
    score: Annotated[
        float | None, Field(description="How much it is like what was asked, of recalled ones.")
    ] = None


class TurnList(BaseModel):
    """Turns, in their order; recalled ones, the likest first."""

    turns: list[TurnObject]


class DeletedSession(BaseModel):
    """What was forgotten."""

    id: str
    object: Literal["session"] = "session"
    deleted: bool
