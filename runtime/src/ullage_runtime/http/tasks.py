"""Which endpoints a model's task is for, and what a request at another one is told."""

from typing import Final

from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import InvalidRequest

_ENDPOINTS: Final = {
    Task.CHAT: "/v1/chat/completions",
    Task.COMPLETION: "/v1/completions",
    Task.EMBEDDING: "/v1/embeddings",
    Task.RERANK: "/v1/rerank",
}


def check_task(model: DesiredModel, what: str, *tasks: Task) -> None:
    """Raise InvalidRequest, which names the right endpoint, unless the model is for such a task.

    `what` is what the endpoint does, as a verb: `answer chats`.
    """
    if model.task not in tasks:
        raise InvalidRequest(
            f"model {model.name!r} is for {model.task.value} and does not {what}; "
            f"use {_ENDPOINTS[model.task]}",
            param="model",
        )
