"""The request of the Responses API, and the chat it amounts to.

What both APIs have is checked where chat completions check it; only names and nesting differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, WithJsonSchema, field_validator

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.errors import from_validation
from ullage_runtime.http.openai.fields import (
    Limit,
    Logprobs,
    Request,
    Share,
    Temperature,
    Text,
    Tier,
)
from ullage_runtime.http.openai.schema import ChatRequest, Name
from ullage_runtime.http.openai.tools import ToolDefinition
from ullage_runtime.http.responses.described import INPUT, TOOL_CHOICE, TOOLS

MAX_METADATA: Final = 16
MAX_TOOLS: Final = 128

_LOGPROBS: Final = "message.output_text.logprobs"
_RESULTS: Final = "file_search_call.results"
_INCLUDABLE: Final = frozenset(
    {
        _LOGPROBS,
        _RESULTS,
        # Reasoning is given back as it is, and the rest can never occur here.
        "reasoning.encrypted_content",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    }
)

_INCLUDES: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "array", "items": {"type": "string", "enum": sorted(_INCLUDABLE)}},
            {"type": "null"},
        ]
    }
)

_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "background": (None, False),
    "context_management": (None, []),
    "conversation": (None,),
    "prompt": (None,),
    "moderation": (None,),
    "truncation": (None, "disabled"),
    "stream_options": (None, {}, {"include_obfuscation": False}),
}
"""Parameters we would not honour, each with the values that change nothing."""

_ELSEWHERE: Final[Mapping[str, str]] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "top_logprobs",
}
"""What chat completions call what is spelt otherwise here."""


class TextFormat(Request):
    """What the text of an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    name: Text | None = None
    description: Text | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(Request):
    """How an answer's text is written."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Request):
    """How much a model thinks before it speaks."""

    effort: Text | None = None
    summary: Literal["auto"] | None = None
    """Nothing is summarised; `auto` leaves that to us."""
    generate_summary: Literal["auto"] | None = None


class ResponseRequest(Request):
    """The body of `POST /v1/responses`."""

    model: Name
    input: Annotated[Any, INPUT]
    """A text, or a list of items; `items.py` reads it."""
    instructions: Text | None = None
    previous_response_id: Text | None = None
    store: bool | None = None
    stream: bool | None = None
    max_output_tokens: Limit | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_logprobs: Logprobs | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[list[dict[str, Any]] | None, Field(max_length=MAX_TOOLS), TOOLS] = None
    tool_choice: Annotated[str | dict[str, Any] | None, TOOL_CHOICE] = None
    parallel_tool_calls: bool | None = None
    include: Annotated[list[str] | None, _INCLUDES] = None
    metadata: Annotated[
        dict[
            Annotated[Text, Field(max_length=64)],
            Annotated[Text, Field(max_length=512)],
        ]
        | None,
        Field(max_length=MAX_METADATA),
    ] = None
    session_id: Annotated[Text, Field(max_length=64)] | None = None
    """An extension: as for chats."""
    service_tier: Tier | None = None
    """As for chats."""
    user: Text | None = None

    @field_validator("include")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if name not in _INCLUDABLE:
                raise ValueError(f"{name[:64]!r} is not known")
        return value

    @property
    def is_stored(self) -> bool:
        """Whether the response is kept, as it is unless the request says otherwise."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Whether tokens come with their log probabilities."""
        return bool(self.top_logprobs) or _LOGPROBS in (self.include or ())

    @property
    def wants_results(self) -> bool:
        """Whether what a file search found is told, beside the answer that was made of it."""
        return _RESULTS in (self.include or ())


def chat_request(body: ResponseRequest, messages: Sequence[Mapping[str, Any]]) -> ChatRequest:
    """Return the chat that a request amounts to; raises InvalidRequest."""
    extra = dict(body.model_extra or {})
    for name, neutral in _NEUTRAL.items():
        if extra.pop(name, None) not in neutral:
            raise InvalidRequest(
                f"{name} is not supported here, or not with this value; leave it out", param=name
            )
    for name, ours in _ELSEWHERE.items():
        if extra.get(name) is not None:
            raise InvalidRequest(f"{name} is called {ours} here", param=name)
    if extra.get("n") not in (None, 1):
        raise InvalidRequest("n is not supported here; send several requests", param="n")
    asked = {
        **extra,
        "model": body.model,
        "messages": list(messages),
        "session_id": body.session_id,
        "service_tier": body.service_tier,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.wants_logprobs or None,
        "top_logprobs": body.top_logprobs,
        "response_format": _response_format(body.text),
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        **_tools(body),
    }
    try:
        chat = ChatRequest.model_validate({k: v for k, v in asked.items() if v is not None})
    except ValidationError as error:
        located = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
        raise renamed(from_validation(located)) from None
    return _limited(chat, body.tool_choice)


def renamed(error: InvalidRequest) -> InvalidRequest:
    """Return a chat's error in the words of this API."""
    if error.param is not None and error.param.startswith("tools["):
        error.param = error.param.replace(".function", "", 1)
        error.message = error.message.replace(".function", "", 1)
    for theirs, ours in _ELSEWHERE.items():
        if error.param is not None and error.param.startswith(theirs):
            error.param = error.param.replace(theirs, ours, 1)
            error.message = error.message.replace(theirs, ours)
            break
    return error


def _response_format(text: TextOptions | None) -> dict[str, Any] | None:
    if text is None or text.format is None:
        return None
    wanted = text.format
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.schema_ is None:
        raise InvalidRequest("text.format: type json_schema needs a schema", param="text.format")
    schema = {"name": wanted.name or "answer", "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


def _tools(body: ResponseRequest) -> dict[str, Any]:
    """Return a request's tools as chat completions write them."""
    tools = list(_functions(body.tools or ()))
    choice = body.tool_choice
    match choice:
        case {"type": "function", "name": str(name)}:
            choice = {"type": "function", "function": {"name": name}}
        case {"type": "file_search"}:
            choice = "required"
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": [_, *_]}:
            choice = mode  # and `_limited` does the rest, once all tools have been checked
        case {**other}:
            kind = str(other.get("type"))[:64]
            raise InvalidRequest(
                f"tool_choice of type {kind!r} is not supported, or not like this", "tool_choice"
            )
        case _:
            pass  # a word, which chats have too
    return {
        "tools": tools or None,
        "tool_choice": choice,
        "parallel_tool_calls": body.parallel_tool_calls,
    }


def _limited(chat: ChatRequest, choice: object) -> ChatRequest:
    """Return the chat with no more tools than its choice allows; raises InvalidRequest."""
    match choice:
        case {"type": "allowed_tools", "tools": list(allowed)}:
            tools = [_allowed(chat.tools or (), index, tool) for index, tool in enumerate(allowed)]
            return chat.model_copy(update={"tools": tools})
        case _:
            return chat


def _allowed(tools: Sequence[ToolDefinition], index: int, wanted: object) -> ToolDefinition:
    at = f"tool_choice.tools[{index}]"
    match wanted:
        case {"type": "function", "name": str(name)}:
            if (found := next((t for t in tools if t.name == name), None)) is not None:
                return found
            raise InvalidRequest(f"{at}: {name[:64]!r} is not among the tools", at)
        case _:
            raise InvalidRequest(
                f"{at} must be an object such as {{type: function, name: ...}}", at
            )


def _functions(tools: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for index, tool in enumerate(tools):
        if tool.get("type") == "file_search":
            yield tool
            continue
        if tool.get("type") != "function":
            kind = str(tool.get("type"))[:64]
            raise InvalidRequest(
                f"tools[{index}].type: {kind!r} is not supported; functions and file_search are",
                param=f"tools[{index}].type",
            )
        members = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in members if tool.get(name) is not None}
        yield {"type": "function", "function": function}
