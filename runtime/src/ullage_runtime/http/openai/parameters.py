"""Parameters: those we turn into sampling, and those we refuse because we would not honour them.

A parameter that changes the answer is never silently ignored. A neutral value, one with which the
answer is what it would be without the parameter, is accepted, since clients send defaults.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from ullage_api.kinds.sampling import SamplingDefaults
from ullage_runtime.core.domain import GenerateRequest, Sampling, Tools
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.fields import MAX_CHOICES, Request
from ullage_runtime.http.openai.formats import Format, format_of
from ullage_runtime.http.openai.schema import ChatRequest, CompletionRequest, GenerationRequest
from ullage_runtime.http.openai.tools import tools_of

T = TypeVar("T")

SEEDS: Final = 0xFFFFFFFF
"""llama.cpp's seeds have 32 bits, and the highest means "choose one"."""

_NOTHING: Final[tuple[Any, ...]] = (None, [], {}, "")
_OFF: Final[tuple[Any, ...]] = (None, False)
_ZERO: Final[tuple[Any, ...]] = (None, 0)
_ONE: Final[tuple[Any, ...]] = (None, 1)

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": _NOTHING,
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "functions": _NOTHING,
    "function_call": (None, "none", "auto"),
    "top_logprobs": _ZERO,
    "prompt_logprobs": (None,),
    "suffix": _NOTHING,
    "echo": _OFF,
    "best_of": _ONE,
    "use_beam_search": _OFF,
    "modalities": (None, ["text"]),
    "audio": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
    "chat_template": (None,),
    "chat_template_kwargs": _NOTHING,
    "add_generation_prompt": (None, True),
    "continue_final_message": _OFF,
    "guided_regex": (None,),
    "guided_whitespace_pattern": (None,),
    "include_stop_str_in_output": _OFF,
    "skip_special_tokens": (None, True),
    "truncate_prompt_tokens": (None,),
    "allowed_token_ids": _NOTHING,
    "bad_words": _NOTHING,
    "logits_processors": _NOTHING,
    "mirostat": _ZERO,
    "dynatemp_range": _ZERO,
    "xtc_probability": _ZERO,
    "dry_multiplier": _ZERO,
}
"""Parameters that are not supported, or not at this endpoint, each with the values that change
nothing; those that an endpoint declares never come here."""


_REPLACED: Final[Mapping[str, str]] = {"functions": "tools", "function_call": "tool_choice"}


def refuse_unsupported(
    request: Request, neutral_values: Mapping[str, tuple[Any, ...]] = NEUTRAL
) -> None:
    """Raise InvalidRequest when a parameter asks for what we cannot do."""
    for name, value in (request.model_extra or {}).items():
        neutral = neutral_values.get(name)
        # `is`-like for booleans: 0 == False in Python, but echo=0 asks for something.
        if neutral is None or any(value == n and type(value) is type(n) for n in neutral):
            continue
        if any(value == n and _are_numbers(value, n) for n in neutral):
            continue
        if name in _REPLACED:
            newer = _REPLACED[name]
            raise InvalidRequest(f"{name} is not supported; send {newer} instead", param=name)
        raise InvalidRequest(
            f"{name} is not supported here; leave it out rather than get another answer than the "
            "one asked for",
            param=name,
        )


def _are_numbers(*values: object) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def chat_sampling(request: ChatRequest, model: SamplingDefaults | None) -> Sampling:
    """Return how a chat wants its tokens chosen."""
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    return replace(_sampling(request, model), logprobs=logprobs)


def chat_tools(request: ChatRequest) -> Tools | None:
    """Return what a chat may call, or None for nothing; raises InvalidRequest."""
    parallel = request.parallel_tool_calls is not False
    tools = tools_of(request.tools, request.tool_choice, parallel=parallel)
    if tools is not None and format_of(request) != Format():
        raise InvalidRequest(
            "an answer cannot both follow a format and call tools; leave one of them out, or send "
            "tool_choice: none",
            param="tools",
        )
    return tools


def template_options(request: ChatRequest) -> dict[str, Any]:
    """Return a chat's further variables for the model's template."""
    options = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        options["reasoning_effort"] = request.reasoning_effort
    return options


def completion_sampling(request: CompletionRequest, model: SamplingDefaults | None) -> Sampling:
    """Return how a completion wants its tokens chosen; raises InvalidRequest."""
    if request.best_of not in (None, request.choices):
        raise InvalidRequest(
            f"best_of={request.best_of} is not supported unless it equals n; send n and choose",
            param="best_of",
        )
    if request.echo and request.suffix and request.logprobs is not None:
        raise InvalidRequest(
            "echo with logprobs is not supported together with suffix; leave one of them out",
            param="echo",
        )
    wanted = len(request.prompt) * request.choices
    if wanted > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(request.prompt)} prompts with n={request.choices} make {wanted} choices; at "
            f"most {MAX_CHOICES} are allowed in one request",
            param="n",
        )
    return replace(_sampling(request, model), logprobs=request.logprobs)


def _sampling(request: GenerationRequest, model: SamplingDefaults | None) -> Sampling:
    """Return what both have in common.

    What the request leaves open is as the model's own defaults say, or else as ours do.
    """
    model, ours, form = model or SamplingDefaults(), Sampling(), format_of(request)
    limit = _given(request.max_completion_tokens, request.max_tokens)
    return Sampling(
        temperature=_given(request.temperature, _number(model.temperature, ours.temperature)),
        top_p=_given(request.top_p, _number(model.top_p, ours.top_p)),
        top_k=max(0, _given(request.top_k, ours.top_k)),
        seed=None if request.seed is None else request.seed % SEEDS,
        max_tokens=_given(limit, model.max_tokens),
        stop=request.stop,
        min_p=_given(request.min_p, ours.min_p),
        typical_p=_given(request.typical_p, ours.typical_p),
        repetition_penalty=_given(
            request.repetition_penalty, _given(request.repeat_penalty, ours.repetition_penalty)
        ),
        presence_penalty=_given(request.presence_penalty, ours.presence_penalty),
        frequency_penalty=_given(request.frequency_penalty, ours.frequency_penalty),
        logit_bias=request.logit_bias,
        grammar=form.grammar,
        json_schema=form.json_schema,
        formatted_by=form.param or ours.formatted_by,
        min_tokens=_given(request.min_tokens, ours.min_tokens),
        ignores_end=bool(request.ignore_eos),
        stop_tokens=request.stop_token_ids,
    )


def choices_of(request: GenerateRequest, count: int) -> list[GenerateRequest]:
    """Return a generation for each of a prompt's choices; one seed must not make them the same."""
    return [
        replace(
            request,
            request_id=f"{request.request_id}-{index}",
            sampling=_reseeded(request.sampling, index),
        )
        for index in range(count)
    ]


def _reseeded(sampling: Sampling, index: int) -> Sampling:
    if sampling.seed is None or index == 0:
        return sampling
    return replace(sampling, seed=(sampling.seed + index) % SEEDS)


def _number(text: str | None, default: float) -> float:
    return default if text is None else float(text)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
