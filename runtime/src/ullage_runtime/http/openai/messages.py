"""The turns of a chat, checked, and what engines get of them."""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from ullage_runtime.core.domain import Message, ToolCall
from ullage_runtime.http.openai.fields import Request, Text, encodable

MAX_CALLS: Final = 256
MAX_ID_LENGTH: Final = 256

# What the validator below accepts, as the OpenAPI document says it: its own messages are better
# than those of a union of types, which would name every alternative.
_TEXT_PART: Final = {
    "type": "object",
    "properties": {"type": {"const": "text", "type": "string"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_CONTENT_SCHEMA: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": _TEXT_PART, "minItems": 1},
            {"type": "null"},
        ]
    }
)

Id = Annotated[Text, Field(min_length=1, max_length=MAX_ID_LENGTH)]


class CalledFunction(Request):
    """What was called, and with what."""

    name: Annotated[Text, Field(min_length=1, max_length=128)]
    arguments: Text
    """A JSON object, as text."""

    @field_validator("arguments")
    @classmethod
    def _object(cls, value: str) -> str:
        try:
            arguments = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"must be a JSON object, as text: {error}") from None
        if not isinstance(arguments, dict):
            raise ValueError("must be a JSON object, as text")  # noqa: TRY004 - pydantic's
        return value.strip() or "{}"


class MessageCall(Request):
    """A call that the model made."""

    id: Id
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Request):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: Annotated[list[MessageCall] | None, Field(max_length=MAX_CALLS)] = None
    """Calls of the assistant's."""
    content: Annotated[Any, _CONTENT_SCHEMA] = Field(default=None, validate_default=True)
    """Text, or a list of text parts; null only for an assistant."""
    tool_call_id: Id | None = Field(default=None, validate_default=True)
    """Of the call that a tool's message answers."""
    name: Text | None = None
    reasoning_content: Text | None = None
    """What the assistant thought before it said this."""
    reasoning: Text | None = None
    """Another name for `reasoning_content`."""

    @field_validator("role", mode="before")
    @classmethod
    def _known_role(cls, value: object) -> object:
        if value == "function":
            raise ValueError("role 'function' is not supported; send role 'tool' with tool_call_id")
        return value

    @field_validator("content")
    @classmethod
    def _text(cls, value: object, info: ValidationInfo) -> str:
        if value is None:
            if info.data.get("role", "assistant") == "assistant":
                return ""
            raise ValueError("is required")
        if isinstance(value, str):
            return encodable(value)
        if not isinstance(value, list) or not value:
            raise ValueError("must be a string or a list of text parts")
        return "".join(_part_text(index, part) for index, part in enumerate(value))

    @field_validator("tool_calls")
    @classmethod
    def _of_assistants(cls, value: object, info: ValidationInfo) -> object:
        if value and info.data.get("role", "assistant") != "assistant":
            raise ValueError("is only allowed in a message of role 'assistant'")
        return value

    @field_validator("tool_call_id")
    @classmethod
    def _of_tools(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("role") == "tool":
            raise ValueError("is required in a message of role 'tool'")
        return value

    @property
    def message(self) -> Message:
        """What the engine gets."""
        return Message(
            # Chat templates know no developers; OpenAI's call their instructions system ones too.
            "system" if self.role == "developer" else self.role,
            self.content,
            reasoning=self.reasoning_content or self.reasoning or "",
            calls=tuple(
                ToolCall(call.id, call.function.name, call.function.arguments)
                for call in self.tool_calls or ()
            ),
            call_id=self.tool_call_id or "",
            name=self.name or "",
        )


def _part_text(index: int, part: object) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return encodable(text)
        case {"type": str(kind)} if kind != "text":
            raise ValueError(
                f"part {index} is of type {kind[:40]!r}, and models here read text only: leave it "
                "out, or say what it shows in a text part"
            )
        case _:
            raise ValueError(f"part {index} must be an object such as {{type: text, text: ...}}")
