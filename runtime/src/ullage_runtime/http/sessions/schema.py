"""The bodies of the session endpoints."""

from typing import Annotated, Final, Literal

from pydantic import Field

from ullage_runtime.http.openai.fields import Text
from ullage_runtime.http.retrieval.schema import MAX_QUERY, Body, Flat, SearchBody, within
from ullage_runtime.retrieval.sessions.sessions import MAX_TEXT

DAY: Final = 86_400
MAX_TTL: Final = 30 * DAY


class SessionBody(Flat):
    """A session to be begun, and the collection that it searches."""

    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TTL)] = DAY
    """Seconds after which it is deleted, when it has not been used."""


class TurnBody(Body):
    """What somebody said."""

    role: Literal["user", "assistant"]
    text: Annotated[Text, Field(min_length=1, max_length=MAX_TEXT)]


class TurnsBody(Body):
    """Turns to be remembered, in their order."""

    turns: Annotated[list[TurnBody], Field(min_length=1, max_length=100)]


class SessionSearchBody(SearchBody):
    """What is looked for, after what was asked before."""

    remember: bool = True
    """Whether the query becomes a turn of the session; a following page's does not."""
    demote_shown: bool = False
    """Whether findings that were shown before come after those that were not."""


class RecallBody(Body):
    """What turns are to be like."""

    query: Annotated[Text, Field(min_length=1, max_length=MAX_QUERY)]
    limit: Annotated[int, Field(ge=1, le=100), within(1, 100)] = 10
