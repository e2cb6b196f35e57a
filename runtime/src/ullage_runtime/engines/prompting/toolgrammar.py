"""Grammars for calls of tools: their names, and arguments by the JSON schema of each.

A tool that is not `strict` may have a schema with more in it than a grammar can hold; then its
arguments follow the rest of it.
"""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.core.chat.formats import ToolFormat
from ullage_runtime.core.domain import Tool, Tools
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.prompting.grammar import (
    MAX_CONVERTED_BYTES,
    gbnf_of_schema,
    loosened,
)

_PARTS: Final = re.compile(
    r'"(?:\\.|[^"\\])*"'  # texts and
    r"|\[(?:\\.|[^\]\\])*\]"  # classes stay as they are
    r"|[a-zA-Z][a-zA-Z0-9-]*",  # rules get other names
)
_ANY_OBJECT: Final = json.dumps({"type": "object"})


@functools.lru_cache(maxsize=64)
def calls_grammar(tools: Tools, form: ToolFormat, *, after_marker: bool) -> str:
    """Return the GBNF of an answer that is calls and nothing else; raises InvalidRequest.

    With `after_marker` the marker that precedes the first call has been written already.
    """
    rules = [r"ws ::= [ \n]{0,2}"]
    for index, tool in enumerate(tools.offered):
        if tool in tools.callable:
            rules += _call_rules(f"tool{index}", tool, form, index)
    names = [f"tool{i}-call" for i, tool in enumerate(tools.offered) if tool in tools.callable]
    rules.append(f"call ::= {' | '.join(names)}")
    rules.append(_calls_rule(form, parallel=tools.parallel))
    begin = "" if after_marker or form.is_bare else f"ws {json.dumps(form.begin)} "
    rules.append(f"root ::= {begin}calls")
    gbnf = "\n".join(rules)
    if len(gbnf.encode()) > MAX_CONVERTED_BYTES:
        raise InvalidRequest("the grammar made of the tools is too large", param="tools")
    return gbnf


def _calls_rule(form: ToolFormat, *, parallel: bool) -> str:
    if form.is_list:
        more = ' (ws "," ws call)*' if parallel else ""
        return f'calls ::= ws "[" ws call{more} ws "]"'
    if form.is_bare:
        more = f" (ws {json.dumps(form.separator)} ws call)*" if parallel else ""
        return f"calls ::= call{more}"
    begin, end = json.dumps(form.begin), json.dumps(form.end)
    one = f"ws call ws {end}"
    return f"calls ::= {one}" + (f" (ws {begin} {one})*" if parallel else "")


def _call_rules(prefix: str, tool: Tool, form: ToolFormat, index: int) -> list[str]:
    """Return the rules of one tool's calls; those of its schema get a prefix."""
    gbnf = _arguments_grammar(tool, f"tools[{index}].function.parameters")
    renamed = _PARTS.sub(
        lambda part: f"{prefix}-{part[0]}" if part[0][0].isalpha() else part[0], gbnf
    )
    name = json.dumps(json.dumps(tool.name))
    key = json.dumps(json.dumps(form.arguments))
    call = f'"{{" ws "\\"name\\"" ws ":" ws {name} ws "," ws {key} ws ":" ws {prefix}-root ws "}}"'
    return [*renamed.splitlines(), f"{prefix}-call ::= {call}"]


def _arguments_grammar(tool: Tool, at: str) -> str:
    schema = tool.parameters or json.dumps({"type": "object", "properties": {}})
    if tool.strict:
        try:
            return gbnf_of_schema(schema)
        except InvalidRequest as error:
            raise InvalidRequest(f"{at}: {error}", param=at, details=error.details) from error
    loose = _objects(loosened(json.loads(schema)))
    try:
        return gbnf_of_schema(json.dumps(loose))
    except InvalidRequest:
        return gbnf_of_schema(_ANY_OBJECT)


def _objects(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema as it is if it is one of objects, which arguments are."""
    return schema if schema.get("type") == "object" else {"type": "object"}
