"""From a request's sampling to vLLM's own parameters."""

import json
from typing import Any, Final

from ullage_runtime.core.domain import Sampling
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.engines.prompting.chats import Course
from ullage_runtime.engines.prompting.grammar import MAX_NESTING
from ullage_runtime.engines.prompting.prompts import Prompt

_ALL_TYPICAL: Final = 1.0


def parameters_of(sampling: Sampling, prompt: Prompt, limit: int, *, marked: bool) -> Any:
    """Return vLLM's SamplingParams for an answer of so many tokens at most.

    With `marked` special tokens are part of the text, as whoever reads it needs them to tell
    reasoning and calls apart. Raises InvalidRequest for what vLLM cannot do.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind

    if sampling.typical_p != _ALL_TYPICAL:
        raise InvalidRequest(
            "this model is served by vLLM, which knows no typical_p; leave it out",
            param="typical_p",
        )
    try:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            max_tokens=limit,
            min_tokens=min(sampling.min_tokens, limit),
            stop=list(sampling.stop),
            stop_token_ids=list(sampling.stop_tokens),
            ignore_eos=sampling.ignores_end,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            logprobs=sampling.logprobs,
            structured_outputs=_structure(sampling, prompt),
            skip_special_tokens=not marked,
            output_kind=RequestOutputKind.DELTA,
        )
    except (ValueError, VLLMClientError) as error:
        raise refused(error, sampling) from error


def refused(error: Exception, sampling: Sampling) -> InvalidRequest:
    """Return vLLM's refusal of a request as our own."""
    formatted = sampling.json_schema is not None or sampling.grammar is not None
    text = " ".join(str(error).split())[:500]
    return InvalidRequest(
        f"vLLM refuses the request: {text}",
        param=sampling.formatted_by if formatted else None,
    )


def _structure(sampling: Sampling, prompt: Prompt) -> Any:
    """Return what the answer has to follow, if anything."""
    from vllm.sampling_params import StructuredOutputsParams

    course = prompt.course
    if course.waits_for_call:
        form = _calls(course)
    elif sampling.json_schema is not None:
        form = {"type": "json_schema", "json_schema": _checked(sampling.json_schema)}
    else:
        form = None if course.gbnf is None else {"type": "grammar", "grammar": course.gbnf}
    if form is None:
        return None
    if course.waits_for_reasoning:  # which is free, and what comes behind it is not
        thoughts = _tag("", {"type": "any_text"}, course.reasoning_marker)
        form = {"type": "sequence", "elements": [thoughts, form]}
    match form["type"]:
        case "json_schema":
            return StructuredOutputsParams(json=form["json_schema"])
        case "grammar":
            return StructuredOutputsParams(grammar=form["grammar"])
        case _:
            tag = json.dumps({"type": "structural_tag", "format": form})
            return StructuredOutputsParams(structural_tag=tag)


def _checked(text: str) -> Any:
    """Return a schema that is not so deep that reading it could end the process."""
    schema = json.loads(text)
    level: list[Any] = [schema]
    for _ in range(MAX_NESTING):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return schema
    raise ValueError(f"the schema is nested more than {MAX_NESTING} deep")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _calls(course: Course) -> dict[str, Any] | None:
    """Return the form of an answer whose calls, where there are any, follow a grammar."""
    if not course.call_marker or course.gbnf is None:
        return None  # nothing tells where one begins
    call = _tag(course.call_marker, {"type": "grammar", "grammar": course.gbnf}, "")
    return {"type": "triggered_tags", "triggers": [course.call_marker], "tags": [call]}


def _tag(begin: str, content: dict[str, Any], end: str) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}
