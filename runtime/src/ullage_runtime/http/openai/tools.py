"""Tools of chats: what requests say of them, checked, and what engines get."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from ullage_runtime.core.domain import Tool, Tools
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.fields import Request, Text, encodable

MAX_TOOLS: Final = 128
MAX_SEARCHED: Final = 4
"""Collections that one request searches."""
MAX_SCHEMA_BYTES: Final = 64 << 10
NAME_PATTERN: Final = r"^[a-zA-Z0-9_.:/-]{1,128}$"

ToolName = Annotated[str, Field(pattern=NAME_PATTERN)]


class FunctionDefinition(Request):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of its arguments."""
    strict: bool | None = None
    """Whether a schema that cannot be followed in full is refused."""


class RankingOptions(Request):
    """Which findings are good enough."""

    ranker: Text | None = None
    """Accepted and ignored: the collection says which reranker it has."""
    score_threshold: float | None = None
    """Least score of findings by meaning; 0 is none."""


class ToolDefinition(Request):
    """A function that the model may call, or `file_search`: what is searched before it answers."""

    type: Literal["function", "file_search"]
    function: FunctionDefinition | None = Field(default=None, validate_default=True)
    vector_store_ids: Annotated[list[Text], Field(max_length=MAX_SEARCHED)] | None = Field(
        default=None, validate_default=True
    )
    """Names of the collections that are searched."""
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    """How much of what is found the model is shown; 5 by default."""
    filters: dict[str, Any] | None = None
    """Which chunks may be found, as OpenAI writes it: by their payload."""
    ranking_options: RankingOptions | None = None

    @property
    def name(self) -> str | None:
        """The function's name."""
        return None if self.function is None else self.function.name

    @field_validator("function")
    @classmethod
    def _of_functions(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("type") == "function":
            raise ValueError("is required in a tool of type 'function'")
        return value

    @field_validator("vector_store_ids")
    @classmethod
    def _of_searches(cls, value: object, info: ValidationInfo) -> object:
        if not value and info.data.get("type") == "file_search":
            raise ValueError("must name a collection in a tool of type 'file_search'")
        return value


ToolDefinitions = Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)]


def _choice(value: object) -> str | dict[str, str]:
    match value:
        case "auto" | "none" | "required":
            return str(value)
        case {"type": "function", "function": {"name": str(name)}}:
            return {"name": name}
        case _:
            raise ValueError(
                'must be auto, none, required, or {"type": "function", "function": {"name": ...}}'
            )


ToolChoice = Annotated[
    str | dict[str, str],
    PlainValidator(_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["auto", "none", "required"], "type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "function", "type": "string"},
                        "function": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}},
                            "required": ["name"],
                        },
                    },
                    "required": ["type", "function"],
                },
                {"type": "null"},
            ]
        }
    ),
]
"""Whether tools may, must not or must be called, or which one must be."""


def tools_of(
    definitions: Sequence[ToolDefinition] | None,
    choice: str | dict[str, str] | None,
    *,
    parallel: bool,
) -> Tools | None:
    """Return what a chat may call, or None for nothing; raises InvalidRequest."""
    offered = tuple(
        _tool(index, each.function)
        for index, each in enumerate(definitions or ())
        if each.function is not None
    )
    if not offered:
        # What is searched is searched in any case, so that the choice is made.
        if choice not in (None, "auto", "none") and not (definitions and choice == "required"):
            raise InvalidRequest("tool_choice is only allowed with tools", param="tool_choice")
        return None
    names = [tool.name for tool in offered]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"tools has two functions called {twice!r}", param="tools")
    if choice == "none":
        return None
    only = choice["name"] if isinstance(choice, dict) else None
    if only is not None and only not in names:
        raise InvalidRequest(
            f"tool_choice names {only[:128]!r}, which is not among the tools: {', '.join(names)}",
            param="tool_choice",
        )
    return Tools(offered, required=choice == "required", only=only, parallel=parallel)


def _tool(index: int, function: FunctionDefinition) -> Tool:
    at = f"tools[{index}].function.parameters"
    try:
        schema = "" if function.parameters is None else json_text(function.parameters)
    except ValueError as error:
        raise InvalidRequest(f"{at} is no JSON schema: {error}", param=at) from error
    if len(schema.encode()) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"{at} may have {MAX_SCHEMA_BYTES} bytes", param=at)
    return Tool(function.name, function.description or "", schema, strict=bool(function.strict))


def json_text(value: object) -> str:
    """Return a value as JSON text that UTF-8 can carry; raises ValueError."""
    try:
        return encodable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
