"""Items of a conversation: checked as they come in, written as the API gives them back.

A conversation is a list of items: messages, calls of functions, what those gave, and reasoning.
Here they become complete (each with its id and status), and the chat that a model is shown.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.responses import ids
from ullage_runtime.http.responses.store import Item

MAX_ITEMS: Final = 4096
"""Items of a whole conversation."""
MAX_ID: Final = 128

REFERENCE: Final = "item_reference"
FILE_SEARCH_CALL: Final = "file_search_call"

_ROLES: Final = ("user", "assistant", "system", "developer")
_TEXTS: Final = ("input_text", "output_text")
_STATUSES: Final = ("completed", "incomplete", "in_progress")
_KINDS: Final[Mapping[str, str]] = {
    "message": ids.MESSAGE,
    "function_call": ids.CALL,
    "function_call_output": ids.CALL_OUTPUT,
    "reasoning": ids.REASONING,
    FILE_SEARCH_CALL: ids.FILE_SEARCH,
}


def parsed_items(value: object) -> tuple[Item, ...]:
    """Return a request's input as items, ids only where given; raises InvalidRequest."""
    if isinstance(value, str):
        return (_message("input", {"role": "user", "content": value}),)
    if not isinstance(value, list) or not value:
        raise _wrong("input", "must be a text or a list of items, and not empty")
    if len(value) > MAX_ITEMS:
        raise _wrong("input", f"has {len(value)} items; at most {MAX_ITEMS} are allowed")
    return tuple(_item(f"input[{index}]", item) for index, item in enumerate(value))


def with_ids(
    items: Iterable[Item], taken: Iterable[Item], new_id: Callable[[str], str]
) -> tuple[Item, ...]:
    """Return the items, each with an id that no other item of the conversation has."""
    known = {item["id"] for item in taken}
    named = []
    for item in items:
        name = item.get("id")
        if name is None or name in known:
            name = new_id(_KINDS[item["type"]])
        known.add(name)
        named.append({**item, "id": name})
    return tuple(named)


def check_calls(items: Sequence[Item]) -> None:
    """Raise InvalidRequest when something was given back that no function was called for."""
    called = set()
    for item in items:
        if item["type"] == "function_call":
            called.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in called:
            raise _wrong(
                "input",
                f"has the output of call {item['call_id']!r}, but no function_call with that "
                "call_id before it; send both, or previous_response_id",
            )


def chat_messages(items: Sequence[Item], instructions: str | None = None) -> list[dict[str, Any]]:
    """Return the chat that a model is shown, as chat completions write it."""
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    thoughts = ""
    for item in items:
        match item["type"]:
            case "message":
                messages.append({"role": item["role"], "content": _said(item)})
                thoughts = _thought(messages, thoughts)
            case "function_call":
                calls = _calling(messages)
                thoughts = _thought(messages, thoughts)
                calls.append(
                    {
                        "id": item["call_id"],
                        "type": "function",
                        "function": {"name": item["name"], "arguments": item["arguments"]},
                    }
                )
            case "function_call_output":
                text = item["output"]
                if not isinstance(text, str):
                    text = "".join(part["text"] for part in text)
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
            case "file_search_call":
                pass  # what it found was for the answer that is there
            case _:
                thoughts += "".join(part["text"] for part in item["content"] or item["summary"])
    return messages


def _thought(messages: list[dict[str, Any]], thoughts: str) -> str:
    """Give the latest message the thoughts that led to it; the user's messages end them."""
    if thoughts and messages[-1]["role"] == "assistant":
        messages[-1]["reasoning_content"] = thoughts
    return ""


def _calling(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls of the assistant's message that is being written, a new one if need be."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    calls: list[dict[str, Any]] = messages[-1].setdefault("tool_calls", [])
    return calls


def _said(item: Item) -> str:
    return "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])


def _item(at: str, item: object) -> Item:
    if not isinstance(item, dict):
        raise _wrong(at, "must be an object")
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else REFERENCE
    if kind == REFERENCE:
        return {"type": kind, **_texts(at, item, "id")}
    made = _made(at, kind, item)
    name = item.get("id")
    if name is None:
        return made
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_ID:
        raise _wrong(f"{at}.id", f"must be a text of 1 to {MAX_ID} characters")
    return {"id": _encodable(f"{at}.id", name), **made}


def _made(at: str, kind: object, item: Mapping[str, Any]) -> Item:
    match kind:
        case "message":
            return _message(at, item)
        case "function_call":
            return {
                "type": kind,
                **_texts(at, item, "call_id", "name"),
                "arguments": _arguments(at, item),
                "status": _status(at, item),
            }
        case "function_call_output":
            return {
                "type": kind,
                **_texts(at, item, "call_id"),
                "output": _output(at, item.get("output")),
                "status": _status(at, item),
            }
        case "reasoning":
            return _reasoning(at, item)
        case "file_search_call":
            return _file_search(at, item)
        case _:
            raise _wrong(f"{at}.type", f"{str(kind)[:64]!r} is not supported")


def _message(at: str, item: Mapping[str, Any]) -> Item:
    role = item.get("role")
    if role not in _ROLES:
        raise _wrong(f"{at}.role", f"must be one of {', '.join(_ROLES)}")
    content = item.get("content")
    if isinstance(content, str):
        content = [{"type": _TEXTS[0], "text": content}]
    if not isinstance(content, list):
        raise _wrong(f"{at}.content", "must be a text or a list of parts")
    parts = [_part(f"{at}.content[{i}]", part, role) for i, part in enumerate(content)]
    return {"type": "message", "role": role, "status": _status(at, item), "content": parts}


def _part(at: str, part: object, role: str) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            text = _encodable(at, text)
            return output_text(text) if role == "assistant" else {"type": _TEXTS[0], "text": text}
        case {"type": "refusal", "refusal": str(text)} if role == "assistant":
            return {"type": "refusal", "refusal": _encodable(at, text)}
        case {"type": str(kind)} if kind not in {*_TEXTS, "text", "refusal"}:
            raise _wrong(f"{at}.type", f"{kind[:64]!r} is not supported; only text is")
        case _:
            raise _wrong(at, "must be a part such as {type: input_text, text: ...}")


def output_text(
    text: str, logprobs: Sequence[Any] = (), annotations: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return a part of what a model said."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": list(annotations),
        "logprobs": list(logprobs),
    }


def _output(at: str, output: object) -> str | list[dict[str, Any]]:
    if isinstance(output, str):
        return _encodable(f"{at}.output", output)
    if not isinstance(output, list):
        raise _wrong(f"{at}.output", "must be a text or a list of text parts")
    return [_part(f"{at}.output[{i}]", part, "user") for i, part in enumerate(output)]


def _reasoning(at: str, item: Mapping[str, Any]) -> Item:
    if item.get("encrypted_content") is not None:
        raise _wrong(
            f"{at}.encrypted_content", "cannot be read here; leave the item out, or send its text"
        )
    return {
        "type": "reasoning",
        "summary": list(_thoughts(at, item, "summary", "summary_text")),
        "content": list(_thoughts(at, item, "content", "reasoning_text")),
        "status": _status(at, item),
    }


def _file_search(at: str, item: Mapping[str, Any]) -> Item:
    queries = item.get("queries")
    if not isinstance(queries, list) or not all(isinstance(each, str) for each in queries):
        raise _wrong(f"{at}.queries", "must be a list of texts")
    queries = [_encodable(f"{at}.queries", each) for each in queries]
    return {
        "type": FILE_SEARCH_CALL,
        "status": _status(at, item),
        "queries": queries,
        "results": None,
    }


def _thoughts(at: str, item: Mapping[str, Any], name: str, kind: str) -> Iterator[dict[str, Any]]:
    parts = item.get(name) or []
    if not isinstance(parts, list):
        raise _wrong(f"{at}.{name}", "must be a list of parts")
    for index, part in enumerate(parts):
        match part:
            case {"type": str(given), "text": str(text)} if given == kind:
                yield {"type": kind, "text": _encodable(f"{at}.{name}[{index}]", text)}
            case _:
                raise _wrong(f"{at}.{name}[{index}]", f"must be a part of type {kind}")


def _texts(at: str, item: Mapping[str, Any], *names: str) -> dict[str, str]:
    texts = {}
    for name in names:
        text = item.get(name)
        if not isinstance(text, str) or not text:
            raise _wrong(f"{at}.{name}", "must be a text, and not empty")
        if name != "arguments" and len(text) > MAX_ID:
            raise _wrong(f"{at}.{name}", f"must have at most {MAX_ID} characters")
        texts[name] = _encodable(f"{at}.{name}", text)
    return texts


def _arguments(at: str, item: Mapping[str, Any]) -> str:
    text = _texts(at, {"arguments": "{}", **item}, "arguments")["arguments"]
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{at}.arguments", f"must be a JSON object, as text: {error}") from None
    if not isinstance(arguments, dict):
        raise _wrong(f"{at}.arguments", "must be a JSON object, as text")
    return text


def _status(at: str, item: Mapping[str, Any]) -> str:
    status = item.get("status")
    if status is None:
        return _STATUSES[0]
    if status not in _STATUSES:
        raise _wrong(f"{at}.status", f"must be one of {', '.join(_STATUSES)}")
    return str(status)


def _encodable(at: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _wrong(at, "must be valid Unicode; it has an unpaired surrogate") from None
    return text


def _wrong(at: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{at}: {what}" if at != "input" else f"input {what}", param=at)
