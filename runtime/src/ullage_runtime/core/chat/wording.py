"""Tools in words, for models whose chat template knows nothing of them.

They are told which tools there are and how to call them in a message; calls and results of earlier
turns are written the way that this message describes.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ullage_runtime.core.chat.formats import HERMES
from ullage_runtime.core.domain import Message, Tool, ToolCall, Tools

_RESULT = ("<tool_response>", "</tool_response>")


def described(tool: Tool) -> dict[str, Any]:
    """Return a tool as OpenAI's API, and chat templates, know it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = (
        json.loads(tool.parameters) if tool.parameters else {"type": "object", "properties": {}}
    )
    return {"type": "function", "function": function}


def in_words(messages: Sequence[Message], tools: Tools | None) -> list[Message]:
    """Return messages with plain roles and contents only, which any template takes."""
    plain: list[Message] = []
    before = ""
    for message in messages:
        said = _plain(message)
        if message.role == before == "tool":  # templates want roles to alternate
            said = replace(said, content=f"{plain.pop().content}\n{said.content}")
        plain.append(said)
        before = message.role
    if tools is not None:
        _instruct(plain, _instruction(tools))
    return plain


def _plain(message: Message) -> Message:
    if message.role == "tool":
        begin, end = _RESULT
        return Message("user", f"{begin}\n{message.content}\n{end}")
    if not message.calls:
        return message
    calls = "\n".join(map(_written, message.calls))
    content = f"{message.content}\n{calls}" if message.content else calls
    return replace(message, content=content, calls=())


def _written(call: ToolCall) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    body = f'{{"name": {name}, "{HERMES.arguments}": {call.arguments}}}'
    return f"{HERMES.begin}\n{body}\n{HERMES.end}"


def _instruct(messages: list[Message], instruction: str) -> None:
    """Put the instruction where every template takes it: some know no system's messages."""
    for role in ("system", "user"):
        for index, message in enumerate(messages):
            if message.role == role:
                parts = [message.content, instruction]
                content = "\n\n".join(parts if role == "system" else reversed(parts))
                messages[index] = replace(message, content=content)
                return
    messages.insert(0, Message("user", instruction))


def _instruction(tools: Tools) -> str:
    listed = "\n".join(
        json.dumps(described(tool)["function"], ensure_ascii=False) for tool in tools.offered
    )
    example = f'{{"name": <its name>, "{HERMES.arguments}": <its arguments>}}'
    several = "one or more of these tools" if tools.parallel else "one of these tools"
    return (
        f"You can call {several}, each described by the JSON schema of its arguments:\n{listed}\n"
        f"To call a tool, answer with {HERMES.begin}{example}{HERMES.end}, in valid JSON. "
        f"Its result comes in the next message between {_RESULT[0]} and {_RESULT[1]}."
    )
