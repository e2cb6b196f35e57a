"""The two applications of a process: the public one, and the operator's on its own port."""

import pathlib
from collections.abc import Callable

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware

import ullage_runtime
from ullage_runtime.http.auth import KeyRing
from ullage_runtime.http.embeddings import router as embeddings
from ullage_runtime.http.errors import install_error_handlers
from ullage_runtime.http.internal import reindexes as reindex_workers
from ullage_runtime.http.internal import router as internal
from ullage_runtime.http.internal.service import DesiredDocuments
from ullage_runtime.http.middleware import (
    PROBES,
    Admission,
    Authentication,
    BodyLimit,
    LiveCors,
    RequestContext,
    TokenCheck,
    UnexpectedErrors,
)
from ullage_runtime.http.openai import router as openai
from ullage_runtime.http.openai.objects import ChatCompletionChunk
from ullage_runtime.http.openapi import describe
from ullage_runtime.http.ops import caches, memory, rollouts
from ullage_runtime.http.ops import router as ops
from ullage_runtime.http.ranking import router as ranking
from ullage_runtime.http.reindexes import router as reindexes
from ullage_runtime.http.responses import router as responses
from ullage_runtime.http.responses.objects import ResponseEvent
from ullage_runtime.http.retrieval import flat, uploads
from ullage_runtime.http.retrieval import router as retrieval
from ullage_runtime.http.routes import serve
from ullage_runtime.http.services import Services
from ullage_runtime.http.sessions import router as sessions
from ullage_runtime.http.status import router as status
from ullage_runtime.http.status.schema import StatusMessage
from ullage_runtime.http.tokens import router as tokens

log = structlog.stdlib.get_logger(__name__)

INTERNAL_OPEN = PROBES | {"/metrics"}
"""Paths of the operator's application that need no token."""
INTERNAL_BODY_BYTES = 2 << 20
"""Twice what a ConfigMap holds, and so twice the largest desired document."""

MEMORY_TEXT = """Devices, and what models take of them.

The WebSocket `/ws/status` tells the same as it changes, in messages of schema `StatusMessage`."""


def public_app(services: Services, keys: KeyRing | None) -> FastAPI:
    """Return the application that clients talk to; without `keys` everybody may."""
    limits, metrics = services.limits, services.metrics
    app = _app(
        "Ullage",
        services,
        [
            Middleware(RequestContext, metrics=metrics, surface="public"),
            Middleware(UnexpectedErrors),
            Middleware(LiveCors, limits=limits),
            Middleware(Authentication, keys=keys),
            Middleware(Admission, limits=limits, drain=services.drain, metrics=metrics),
            Middleware(
                BodyLimit,
                max_bytes=lambda: limits.max_body_bytes,
                seconds=services.settings.body_seconds,
            ),
        ],
    )
    serve(
        app,
        (
            openai.router,
            memory.router,
            caches.router,
            rollouts.router,
            status.router,
            responses.router,
            embeddings.router,
            ranking.router,
            tokens.router,
            retrieval.router,
            uploads.router,
            flat.router,
            sessions.router,
            reindexes.router,
            ops.router,
        ),
    )
    describe(
        app,
        summary="Language models behind OpenAI's API.",
        tags={
            openai.TAG: "OpenAI's API, for the models of this pool.",
            memory.TAG: MEMORY_TEXT,
            caches.TAG: "What this pod keeps of answers it has given.",
            rollouts.TAG: "How revisions of a model take each other's place.",
            responses.TAG: "OpenAI's Responses API: answers that are stored and gone on from.",
            embeddings.TAG: "OpenAI's embeddings, for models that embed.",
            ranking.TAG: "Documents scored for a query, as Cohere, Jina, TEI and vLLM do.",
            retrieval.TAG: "Documents and vectors, and searches in them.",
            sessions.TAG: "Searches that build on what was asked before.",
            reindexes.TAG: "Collections brought to another model or index, while they are used.",
            tokens.TAG: "What a model's vocabulary makes of a text.",
            ops.TAG: "Probes and metrics.",
        },
        secured="An API key of the pool." if keys is not None else None,
        open_paths=PROBES,
        schemas=(ChatCompletionChunk, ResponseEvent, StatusMessage),
    )
    return app


def internal_app(
    services: Services, documents: DesiredDocuments, token: Callable[[], str]
) -> FastAPI:
    """Return the application that the operator talks to."""
    app = _app(
        "Ullage internal",
        services,
        [
            Middleware(RequestContext, metrics=services.metrics, surface="internal"),
            Middleware(UnexpectedErrors),
            # Prometheus has no token; a NetworkPolicy decides who reaches this port.
            Middleware(TokenCheck, token=token, open_paths=INTERNAL_OPEN),
            Middleware(
                BodyLimit,
                max_bytes=lambda: INTERNAL_BODY_BYTES,
                seconds=services.settings.body_seconds,
            ),
        ],
    )
    app.state.documents = documents
    serve(
        app,
        (
            internal.router,
            reindex_workers.router,
            memory.router,
            caches.router,
            status.router,
            ops.router,
        ),
    )
    describe(
        app,
        summary="What the operator and a pod of a pool say to each other.",
        tags={
            internal.TAG: "Desired documents in, reports out.",
            reindex_workers.TAG: "How workers drive reindex jobs, whose data stays in the pod.",
            memory.TAG: MEMORY_TEXT,
            caches.TAG: "What this pod keeps of answers it has given.",
            ops.TAG: "Probes and metrics.",
        },
        secured="The pool's own token.",
        open_paths=INTERNAL_OPEN,
        schemas=(StatusMessage,),
    )
    return app


def _app(title: str, services: Services, middleware: list[Middleware]) -> FastAPI:
    app = FastAPI(
        title=title,
        version=ullage_runtime.__version__,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        middleware=middleware,
    )
    app.state.services = services
    install_error_handlers(app)
    return app


class TokenFile:
    """A token in a mounted file, read again when the file changes."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._fingerprint: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Return the token, or nothing (which opens no door) when there is none."""
        try:
            stat = self._path.stat()
            fingerprint = (stat.st_mtime_ns, stat.st_ino)
            if fingerprint != self._fingerprint:
                self._token = self._path.read_text(encoding="utf-8").strip()
                self._fingerprint = fingerprint
        except OSError as error:
            log.error("the token's file cannot be read", error=str(error))  # noqa: TRY400
            return ""
        return self._token
