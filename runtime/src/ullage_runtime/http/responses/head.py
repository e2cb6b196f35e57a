"""The response object, as far as its request decides it."""

from typing import Any

from ullage_runtime.core.domain import Sampling
from ullage_runtime.http.openai.fields import ServedTier
from ullage_runtime.http.responses.schema import ResponseRequest


def response_head(
    body: ResponseRequest,
    response_id: str,
    created: float,
    sampling: Sampling,
    tier: ServedTier,
) -> dict[str, Any]:
    """Return the object of a response that has no output yet."""
    extra = body.model_extra or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(created),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "frequency_penalty": sampling.frequency_penalty,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": extra.get("max_tool_calls"),
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "presence_penalty": sampling.presence_penalty,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": extra.get("prompt_cache_key"),
        "reasoning": _reasoning(body),
        "safety_identifier": extra.get("safety_identifier"),
        "service_tier": tier,
        "store": body.is_stored,
        "temperature": sampling.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _reasoning(body: ResponseRequest) -> dict[str, Any]:
    effort = body.reasoning.effort if body.reasoning else None
    return {"effort": effort, "summary": None}


def _format(body: ResponseRequest) -> dict[str, Any]:
    if body.text is None or body.text.format is None:
        return {"type": "text"}
    return body.text.format.model_dump(by_alias=True, exclude_none=True)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") == "file_search":
        return tool
    return {
        "type": "function",
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict"),
    }
