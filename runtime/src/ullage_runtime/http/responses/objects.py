"""The answers of the Responses API as types, for the OpenAPI document.

`head.py` and `turn.py` write the answers themselves; tests hold what they write against OpenAI's
own client, whose types say more than these.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ullage_runtime.http.openai.fields import ServedTier


class Item(BaseModel):
    """One item of a conversation: a message, a function's call or output, reasoning, a search."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: Literal[
        "message", "function_call", "function_call_output", "reasoning", "file_search_call"
    ]


class ResponseObject(BaseModel):
    """A response: what was asked of the model, what it answered, and how that ended."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[Item]
    previous_response_id: str | None
    service_tier: Annotated[ServedTier, Field(description="The tier it was really served with.")]
    store: Annotated[bool, Field(description="Whether it was, or will be, stored.")]
    usage: dict[str, Any] | None


class ResponseEvent(BaseModel):
    """One event of a streamed response; `type` says which further members it has."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="The event's name, such as `response.completed`.")]
    sequence_number: int


class InputItems(BaseModel):
    """One page of the items that a response was the answer to."""

    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedResponse(BaseModel):
    """What is left of a response that was deleted."""

    id: str
    object: Literal["response"]
    deleted: bool
