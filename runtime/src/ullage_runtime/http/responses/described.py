"""What `items.py` and `schema.py` accept, as the OpenAPI document says it.

Their own checks give better messages than a union of types would, which names every alternative.
"""

from typing import Any, Final

from pydantic import WithJsonSchema

_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 128}
_STATUS: Final = {"enum": ["in_progress", "completed", "incomplete"], "type": "string"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    nullable = {name: {"anyOf": [kind, {"type": "null"}]} for name, kind in optional.items()}
    return {
        "type": "object",
        "properties": {**required, **nullable},
        "required": list(required),
    }


def _constant(text: str) -> dict[str, Any]:
    return {"const": text, "type": "string"}


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_PART: Final = _object(
    {"type": {"enum": ["input_text", "output_text"], "type": "string"}, "text": _TEXT}
)
_CONTENT: Final = {"anyOf": [_TEXT, _list_of(_PART)]}
_MESSAGE: Final = _object(
    {
        "role": {"enum": ["user", "assistant", "system", "developer"], "type": "string"},
        "content": _CONTENT,
    },
    type=_constant("message"),
    id=_NAME,
    status=_STATUS,
)
_CALL: Final = _object(
    {"type": _constant("function_call"), "call_id": _NAME, "name": _NAME},
    arguments={**_TEXT, "contentMediaType": "application/json"},
    id=_NAME,
    status=_STATUS,
)
_CALL_OUTPUT: Final = _object(
    {"type": _constant("function_call_output"), "call_id": _NAME, "output": _CONTENT},
    id=_NAME,
    status=_STATUS,
)
_REASONING: Final = _object(
    {"type": _constant("reasoning")},
    summary=_list_of(_object({"type": _constant("summary_text"), "text": _TEXT})),
    content=_list_of(_object({"type": _constant("reasoning_text"), "text": _TEXT})),
    id=_NAME,
    status=_STATUS,
)
_REFERENCE: Final = _object({"type": _constant("item_reference"), "id": _NAME})

INPUT: Final = WithJsonSchema(
    {
        "anyOf": [
            _TEXT,
            {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [_MESSAGE, _CALL, _CALL_OUTPUT, _REASONING, _REFERENCE]},
            },
        ]
    }
)
"""A text, or items of a conversation."""

TOOLS: Final = WithJsonSchema(
    {
        "anyOf": [
            _list_of(
                {
                    "anyOf": [
                        _object(
                            {"type": _constant("function"), "name": _NAME},
                            description=_TEXT,
                            parameters={"type": "object"},
                            strict={"type": "boolean"},
                        ),
                        _object(
                            {
                                "type": _constant("file_search"),
                                "vector_store_ids": {**_list_of(_NAME), "minItems": 1},
                            },
                            max_num_results={"type": "integer", "minimum": 1, "maximum": 50},
                            filters={"type": "object"},
                            ranking_options=_object({}, score_threshold={"type": "number"}),
                        ),
                    ]
                }
            ),
            {"type": "null"},
        ]
    }
)
"""Functions that a model may call, and collections that are searched before it answers."""

TOOL_CHOICE: Final = WithJsonSchema(
    {
        "anyOf": [
            {"enum": ["auto", "none", "required"], "type": "string"},
            _object({"type": _constant("function"), "name": _TEXT}),
            _object({"type": _constant("file_search")}),
            _object(
                {
                    "type": _constant("allowed_tools"),
                    "mode": {"enum": ["auto", "required"], "type": "string"},
                    "tools": {
                        **_list_of(_object({"type": _constant("function"), "name": _TEXT})),
                        "minItems": 1,
                    },
                }
            ),
            {"type": "null"},
        ]
    }
)
"""Whether functions may, must not or must be called, or which."""
