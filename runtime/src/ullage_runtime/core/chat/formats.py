"""How models write calls of tools: a table, by what shows in their chat templates."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How calls are written: each an object with a name and arguments, between markers."""

    name: str
    begin: str
    """What a call, or the list of them, begins with."""
    end: str
    """What a call ends with; a list's bracket ends by itself."""
    arguments: str
    """What the model calls the arguments; both names are read."""
    is_list: bool = False
    """Whether one marker precedes a JSON list of all calls."""
    is_bare: bool = False
    """Whether an answer that begins with an object may be a call, without any marker."""
    separator: str = ""
    """What stands between calls that have no markers."""


HERMES: Final = ToolFormat("hermes", "<tool_call>", "</tool_call>", "arguments")
"""Of Nous Research's Hermes and Qwen, and what models without tools in their template are told."""

LLAMA: Final = ToolFormat("llama", "<|python_tag|>", "", "parameters", is_bare=True, separator=";")
"""Of Llama 3.1 and later."""

MISTRAL: Final = ToolFormat("mistral", "[TOOL_CALLS]", "", "arguments", is_list=True)
"""Of Mistral's models with a list of calls."""

_READS_TOOLS: Final = re.compile(r"\btools\b")
_NO_JSON: Final = ("<function=", "<arg_key>", "[ARGS]")
"""What templates have whose calls are written otherwise than as JSON objects."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model takes and writes calls of tools."""

    tools: ToolFormat
    is_native: bool
    """Whether its template tells the model of tools; else a message has to."""


def format_of(template: str) -> ChatFormat:
    """Return how a model with this template deals with tools."""
    if _READS_TOOLS.search(template) and not any(mark in template for mark in _NO_JSON):
        for tools in (MISTRAL, HERMES, LLAMA):
            if tools.begin in template:
                return ChatFormat(tools, is_native=True)
        if '"parameters":' in template and "ipython" in template:
            return ChatFormat(LLAMA, is_native=True)
    return ChatFormat(HERMES, is_native=False)
