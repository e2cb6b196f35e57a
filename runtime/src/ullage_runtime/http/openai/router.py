"""The paths of OpenAI's API."""

from fastapi import Request
from starlette.responses import Response

from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.model_status import Residency
from ullage_api.names import adapter_name
from ullage_runtime.core.domain import ModelCard
from ullage_runtime.http.middleware import ADAPTER
from ullage_runtime.http.openai.objects import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Model,
    ModelList,
)
from ullage_runtime.http.openai.schema import ChatRequest, CompletionRequest
from ullage_runtime.http.openai.service import (
    chat_answer,
    chosen_model,
    completion_answer,
    visible_cards,
)
from ullage_runtime.http.openapi import CALLED, CHOSEN, SEARCHED, SERVED, refusals, stream_of
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "OpenAI"

router = Router(prefix="/v1", tag=TAG)


@router.get("/models", responses=refusals(*CALLED))
async def list_models(request: Request, services: ServicesOf) -> ModelList:
    """List the models that the caller may use."""
    cards = visible_cards(services, request)
    return ModelList(object="list", data=[m for card in cards for m in _model_objects(card)])


@router.get("/models/{name:path}", responses=refusals(*CALLED, *CHOSEN))
async def get_model(name: str, request: Request, services: ServicesOf) -> Model:
    """Describe one model, by its name or an alias, with an adapter's name or without."""
    model = chosen_model(services, request, name)
    card = next(c for c in services.models.cards() if c.name == model.name)
    return _model_object(card, request.scope[ADAPTER])


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The answer, whole or, with `stream`, as events.",
            "content": stream_of(ChatCompletionChunk),
        },
        **refusals(*SERVED, *SEARCHED),
    },
)
async def create_chat_completion(
    body: ChatRequest, request: Request, services: ServicesOf
) -> Response:
    """Answer a chat, whole or as a stream."""
    return await chat_answer(services, request, body)


@router.post(
    "/completions",
    response_model=Completion,
    responses={
        200: {
            "description": "The continuation, whole or, with `stream`, as events.",
            "content": stream_of(Completion),
        },
        **refusals(*SERVED),
    },
)
async def create_completion(
    body: CompletionRequest, request: Request, services: ServicesOf
) -> Response:
    """Continue a prompt, whole or as a stream."""
    return await completion_answer(services, request, body)


def _model_objects(card: ModelCard) -> list[Model]:
    """Return a model and, as models of their own, its adapters."""
    return [_model_object(card, adapter) for adapter in ("", *card.adapters)]


def _model_object(card: ModelCard, adapter: str) -> Model:
    def named(name: str) -> str:
        return adapter_name(name, adapter) if adapter else name

    return Model(
        id=named(card.name),
        parent=card.name if adapter else None,
        object="model",
        created=card.created,
        owned_by="ullage",
        aliases=[named(alias) for alias in card.aliases],
        task=Task(card.task),
        residency=Residency(card.residency),
        local=card.local,
    )
