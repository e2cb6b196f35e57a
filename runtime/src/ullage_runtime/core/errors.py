"""Every error a request or a load can meet, as one tree.

ServingError
├── InvalidRequest            400 invalid_request_error
│   ├── ContextLengthExceeded 400 context_length_exceeded
│   ├── InvalidTemplate       400 invalid_template
│   ├── PreviousResponseNotFound 400 previous_response_not_found
│   ├── DimensionMismatch     400 dimension_mismatch
│   └── UnsupportedOutput     400 unsupported_output
├── Unauthorized              401 invalid_api_key
├── Forbidden                 403 permission_denied
├── ModelNotFound             404 model_not_found
├── RevisionNotFound          404 revision_not_found
├── ResponseNotFound          404 response_not_found
├── CollectionNotFound        404 collection_not_found
├── PointNotFound             404 point_not_found
├── DocumentNotFound          404 document_not_found
├── OperationNotFound         404 operation_not_found
├── SessionNotFound           404 session_not_found
├── ReindexNotFound           404 reindex_not_found
├── ReindexConflict           409 reindex_conflict
│   ├── ReindexNotRunning     409 reindex_not_running
│   ├── StaleLease            409 stale_lease
│   └── LeaseHeld             409 lease_held              + Retry-After
├── BodyTooLarge              413 request_too_large
├── Overloaded                429 overloaded              + Retry-After
├── InvalidOutput             500 invalid_output
├── EngineFailed              503 engine_failed           + Retry-After
│   └── EngineDied            503 engine_failed           + Retry-After
├── ModelLoading              503 model_loading           + Retry-After
├── MemoryBusy                503 memory_busy             + Retry-After
│   └── Preempted             503 memory_busy             + Retry-After
├── ModelUnavailable          503 model_unavailable
├── ModelSuspended            503 model_suspended
├── PeerUnavailable           503 peer_unavailable        + Retry-After
├── CollectionUnavailable     503 collection_unavailable  + Retry-After
├── ShuttingDown              503 shutting_down           + Retry-After
├── RequestTimeout            504 timeout
├── DiskFull                  507 insufficient_storage
└── InsufficientMemory        507 insufficient_memory
LoadError                     a revision that could not become active; carries a Reason

`http/errors.py` is the one place that renders them.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ullage_api.conditions import Reason


@dataclass(slots=True)
class ServingError(Exception):
    """A request that cannot be answered, with what the client needs to know."""

    message: str
    param: str | None = None
    retry_after: float | None = None
    """Seconds after which trying again makes sense; None when it does not."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further members of the error object, such as byte counts."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __str__(self) -> str:
        return self.message


class InvalidRequest(ServingError):  # noqa: N818 - named after what the client is told
    """The request is malformed or asks for what the model cannot do."""

    status, code, type = 400, "invalid_request_error", "invalid_request_error"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class InvalidTemplate(InvalidRequest):
    """The model's chat template is broken, or takes more than it may."""

    code = "invalid_template"


class PreviousResponseNotFound(InvalidRequest):
    """The response that a request wants to go on from is not stored."""

    code = "previous_response_not_found"


class DimensionMismatch(InvalidRequest):
    """Vectors of another width are asked for than the model can give."""

    code = "dimension_mismatch"


class UnsupportedOutput(InvalidRequest):
    """A kind of output is asked for that the model's format cannot give."""

    code = "unsupported_output"


class Unauthorized(ServingError):  # noqa: N818
    """No key, or one that is not known."""

    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(ServingError):  # noqa: N818
    """A known key that may not do this."""

    status, code, type = 403, "permission_denied", "permission_error"


class ModelNotFound(ServingError):  # noqa: N818
    """No model of that name or alias."""

    status, code, type = 404, "model_not_found", "invalid_request_error"


class RevisionNotFound(ServingError):  # noqa: N818
    """No revision of that name has answered since the server began."""

    status, code, type = 404, "revision_not_found", "invalid_request_error"


class ResponseNotFound(ServingError):  # noqa: N818
    """No stored response of that id, or none that the caller may see."""

    status, code, type = 404, "response_not_found", "invalid_request_error"


class CollectionNotFound(ServingError):  # noqa: N818
    """No collection of that name."""

    status, code, type = 404, "collection_not_found", "invalid_request_error"


class PointNotFound(ServingError):  # noqa: N818
    """The collection has no point of that id."""

    status, code, type = 404, "point_not_found", "invalid_request_error"


class DocumentNotFound(ServingError):  # noqa: N818
    """The collection has no document of that id."""

    status, code, type = 404, "document_not_found", "invalid_request_error"


class OperationNotFound(ServingError):  # noqa: N818
    """No operation of that id."""

    status, code, type = 404, "operation_not_found", "invalid_request_error"


class SessionNotFound(ServingError):  # noqa: N818
    """No session of that id, or none of the caller's; or it has expired."""

    status, code, type = 404, "session_not_found", "invalid_request_error"


class ReindexNotFound(ServingError):  # noqa: N818
    """No reindex job of that name."""

    status, code, type = 404, "reindex_not_found", "invalid_request_error"


class ReindexConflict(ServingError):  # noqa: N818
    """The reindex job's state does not allow what is asked; the message says what does."""

    status, code, type = 409, "reindex_conflict", "invalid_request_error"


class ReindexNotRunning(ReindexConflict):
    """The job is in another phase than a worker's request is for."""

    code = "reindex_not_running"


class StaleLease(ReindexConflict):
    """Another worker drives the job: what this one asks counts no more."""

    code = "stale_lease"


class LeaseHeld(ReindexConflict):
    """Another worker drives the job, and may be gone soon."""

    code = "lease_held"


class BodyTooLarge(ServingError):  # noqa: N818
    """The request's body is larger than the pool allows."""

    status, code, type = 413, "request_too_large", "invalid_request_error"


class Overloaded(ServingError):  # noqa: N818
    """The queue is full."""

    status, code, type = 429, "overloaded", "rate_limit_error"


class InvalidOutput(ServingError):  # noqa: N818
    """The model computed numbers that are no answer, such as ones that are not finite."""

    status, code = 500, "invalid_output"


class EngineFailed(ServingError):  # noqa: N818
    """The engine's process died or broke while it worked on the request."""

    status, code = 503, "engine_failed"


class EngineDied(EngineFailed):
    """The engine's process is gone, and with it all that it had of the request."""


class ModelLoading(ServingError):  # noqa: N818
    """The model is still on its way and the request was held as long as allowed."""

    status, code = 503, "model_loading"


class MemoryBusy(ServingError):  # noqa: N818
    """The model waits for memory, and the request was held as long as allowed."""

    status, code = 503, "memory_busy"


class Preempted(MemoryBusy):
    """Batch work was broken off, as memory was nearly full; nothing of it was told."""


class ModelUnavailable(ServingError):  # noqa: N818
    """The model could not be loaded; the message says why."""

    status, code = 503, "model_unavailable"


class ModelSuspended(ServingError):  # noqa: N818
    """The model is suspended or has no replicas."""

    status, code = 503, "model_suspended"


class PeerUnavailable(ServingError):  # noqa: N818
    """No pod that holds the model can be reached."""

    status, code = 503, "peer_unavailable"


class CollectionUnavailable(ServingError):  # noqa: N818
    """The collection is not ready, or its store cannot be reached; the message says why."""

    status, code = 503, "collection_unavailable"


class ShuttingDown(ServingError):  # noqa: N818
    """The process is ending; another pod, or the next one, can answer."""

    status, code = 503, "shutting_down"


class RequestTimeout(ServingError):  # noqa: N818
    """The request took longer than the model's limit."""

    status, code, type = 504, "timeout", "timeout_error"


class DiskFull(ServingError):  # noqa: N818
    """The volume of the collections has no room left."""

    status, code, type = 507, "insufficient_storage", "insufficient_storage"


class InsufficientMemory(ServingError):  # noqa: N818
    """The model can never fit into the pool's budget."""

    status, code, type = 507, "insufficient_memory", "insufficient_memory"


@dataclass(slots=True)
class LoadError(Exception):
    """A revision that could not become active."""

    reason: Reason
    message: str
    final: bool
    """Whether only a change of the spec can mend it; otherwise it is retried with backoff."""
    log: tuple[str, ...] = ()
    """The last lines that the engine's process said."""

    def __str__(self) -> str:
        return self.message


def invalid_model(message: str) -> LoadError:
    """Return what says that a file, or a folder of several, is no model that can be loaded."""
    return LoadError(Reason.INVALID_MODEL, message, final=True)
