"""From a valid request to its answer: which model, may the caller, here or at a peer."""

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import replace

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_api.names import ADAPTER_SEPARATOR
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.domain import GenerateRequest, ModelCard
from ullage_runtime.core.errors import ModelNotFound
from ullage_runtime.http.auth import Key
from ullage_runtime.http.leased import charged, is_elsewhere
from ullage_runtime.http.middleware import ADAPTER, KEY, MODEL
from ullage_runtime.http.openai.answers import Shape, StreamedAnswer, WholeAnswer
from ullage_runtime.http.openai.generation import Generation, Then
from ullage_runtime.http.openai.grounding import Grounding, grounding_of
from ullage_runtime.http.openai.parameters import (
    chat_sampling,
    chat_tools,
    choices_of,
    completion_sampling,
    refuse_unsupported,
    template_options,
)
from ullage_runtime.http.openai.recall import recall_of
from ullage_runtime.http.openai.remembering import remembering_of
from ullage_runtime.http.openai.schema import ChatRequest, CompletionRequest, GenerationRequest
from ullage_runtime.http.openai.shapes import ChatShape, CompletionShape
from ullage_runtime.http.rate_limits import prompt_estimate
from ullage_runtime.http.services import Services
from ullage_runtime.http.tasks import check_task

COMPLETION_TOKENS = 16
"""What OpenAI's completions generate when neither the request nor the model says."""


async def chat_answer(services: Services, request: Request, body: ChatRequest) -> Response:
    """Return the answer to a chat."""
    model = chat_model(services, request, body.model)
    asked = chat_work(body, model)
    grounding = then = None
    if not is_elsewhere(services, model):
        asked, grounding, then = await grounded(services, request, body, asked)
    with_logprobs = asked.sampling.logprobs is not None
    cite = None if grounding is None else grounding.citations
    now, tier = int(services.now()), body.served_tier
    shape = ChatShape(asked.request_id, now, body.model, tier, with_logprobs, cite)
    return await _answer(services, request, body, model, [asked], shape, recalls=True, then=then)


async def grounded(
    services: Services, request: Request, body: ChatRequest, asked: GenerateRequest
) -> tuple[GenerateRequest, Grounding | None, Then | None]:
    """Return what is asked with the turns of its session, and with what a search for it has found.

    With these come what was found, and what is to be done with the whole answer, if anything.
    """
    messages = asked.messages or ()
    session = await remembering_of(services, request, body.session_id, messages)
    if session is not None:
        messages = session.shown(messages)
    found = await grounding_of(services, request, body.tools, body.tool_choice, messages)
    if found is not None:
        messages = found.shown(messages)
    then = None if session is None else session.keep
    return replace(asked, messages=messages), found, then


def chat_model(services: Services, request: Request, name: str) -> DesiredModel:
    """Return the model of a name, which answers chats and which the caller may use."""
    model = chosen_model(services, request, name)
    check_task(model, "answer chats", Task.CHAT)
    return model


def chat_work(body: ChatRequest, model: DesiredModel) -> GenerateRequest:
    """Return what a chat asks of its model's engine; raises InvalidRequest."""
    refuse_unsupported(body)
    sampling, tools = chat_sampling(body, model.serving.defaults), chat_tools(body)
    return GenerateRequest(
        request_id=uuid.uuid4().hex,
        messages=tuple(each.message for each in body.messages),
        tools=tools,
        template_options=template_options(body),
        sampling=sampling if tools is None else replace(sampling, formatted_by="tools"),
        priority=body.priority,
    )


async def completion_answer(
    services: Services, request: Request, body: CompletionRequest
) -> Response:
    """Return the continuation of one or several prompts, each a choice."""
    refuse_unsupported(body)
    model = chosen_model(services, request, body.model)
    check_task(model, "complete texts", Task.CHAT, Task.COMPLETION)
    sampling = completion_sampling(body, model.serving.defaults)
    if sampling.max_tokens is None:
        sampling = replace(sampling, max_tokens=COMPLETION_TOKENS)
    work_id = uuid.uuid4().hex
    asked = [
        GenerateRequest(
            request_id=f"{work_id}-{index}",
            prompt=prompt,
            sampling=sampling,
            suffix=body.suffix or None,
            echo=bool(body.echo),
            priority=body.priority,
        )
        for index, prompt in enumerate(body.prompt)
    ]
    now, with_logprobs = int(services.now()), sampling.logprobs is not None
    shape = CompletionShape(work_id, now, body.model, body.served_tier, with_logprobs)
    return await _answer(services, request, body, model, asked, shape)


async def _answer(
    services: Services,
    request: Request,
    body: GenerationRequest,
    model: DesiredModel,
    prompts: Sequence[GenerateRequest],
    shape: Shape,
    *,
    recalls: bool = False,
    then: Then | None = None,
) -> Response:
    """Return the answer that has `n` choices for each prompt."""
    if is_elsewhere(services, model):
        return await services.forwarder.answer(request, model, services.models.desired)
    generation = admitted(
        services, request, model, prompts, choices=body.choices, recalls=recalls, then=then
    )
    if not body.stream:
        return WholeAnswer(generation, shape)
    return StreamedAnswer(
        generation,
        shape,
        heartbeat=services.settings.heartbeat_seconds,
        with_usage=body.wants_usage,
    )


def admitted(
    services: Services,
    request: Request,
    model: DesiredModel,
    prompts: Sequence[GenerateRequest],
    *,
    choices: int = 1,
    recalls: bool = False,
    then: Then | None = None,
) -> Generation:
    """Return the generations of some prompts, charged to the caller; raises RateLimitExceeded.

    `recalls` lets the answer be one that was kept, where the model allows it. `then` is given the
    first choice's whole text before the answer ends.
    """
    allowance = charged(services, request, model, prompt_estimate(prompts))
    key: Key = request.scope[KEY]
    # Cached prefixes are not shared between keys: how fast an answer comes would tell of others.
    adapter: str = request.scope[ADAPTER]
    own = [replace(each, tenant=key.id, adapter=adapter) for each in prompts]
    work = [choice for each in own for choice in choices_of(each, choices)]
    recall = recall_of(services.caches.answers, model, work) if recalls else None
    return Generation(services, model, work, allowance, choices=choices, recall=recall, then=then)


def chosen_model(services: Services, request: Request, name: str) -> DesiredModel:
    """Return the model of a name that the caller may use; raises ModelNotFound or Forbidden.

    `<model>:<adapter>` names a model with one of its adapters, which the scope then tells; a model
    or alias of that very name goes before.
    """
    key: Key = request.scope[KEY]
    model, adapter = _found(services, key, name)
    key.check(model.name)
    if adapter:
        _check_adapter(model, name, adapter)
    request.scope[MODEL], request.scope[ADAPTER] = model.name, adapter
    structlog.contextvars.bind_contextvars(model=model.name)
    return model


def _found(services: Services, key: Key, name: str) -> tuple[DesiredModel, str]:
    base, _, adapter = name.rpartition(ADAPTER_SEPARATOR)
    try:
        return services.models.find(name), ""
    except ModelNotFound:
        if base and adapter:
            with contextlib.suppress(ModelNotFound):
                return services.models.find(base), adapter
        if key.models is None:
            raise
        # The pool's own message lists every name; a restricted key gets to see its own.
        allowed = ", ".join(sorted(key.models)) or "none"
        raise ModelNotFound(
            f"no model {name!r}; this key may use: {allowed}", param="model"
        ) from None


def _check_adapter(model: DesiredModel, name: str, adapter: str) -> None:
    known = [a.name for a in model.target.adapters]
    if adapter not in known:
        has = f"its adapters are: {', '.join(known)}" if known else "it has none"
        raise ModelNotFound(
            f"no model {name!r}; model {model.name!r} has no adapter {adapter!r}, {has}",
            param="model",
        )


def visible_cards(services: Services, request: Request) -> list[ModelCard]:
    """Return the models that the caller may use."""
    key: Key = request.scope[KEY]
    return [card for card in services.models.cards() if key.may_use(card.name)]
