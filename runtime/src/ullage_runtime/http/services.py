"""What the routers work with: one object, made once by the composition root."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.http.draining import Drain
from ullage_runtime.http.forwarding import Forwarder
from ullage_runtime.http.limits import Limits
from ullage_runtime.http.metrics import Metrics
from ullage_runtime.http.rate_limits import RateLimits
from ullage_runtime.http.responses.keeping import KeptResponses
from ullage_runtime.http.viewers import Viewers
from ullage_runtime.models.caches import Caches
from ullage_runtime.models.ports import Models
from ullage_runtime.retrieval.collections import Collections
from ullage_runtime.retrieval.reindex.reindexes import Reindexes
from ullage_runtime.retrieval.sessions.sessions import Sessions
from ullage_runtime.settings import Settings


class GoBack(Protocol):
    """Has an earlier revision of a model answer, where no operator decides that."""

    async def __call__(self, model: DesiredModel, revision: str | None) -> None:
        """Go back to a revision, or without a name to what answered before what is wanted now.

        Raises RevisionNotFound.
        """
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running process that requests meet."""

    models: Models
    settings: Settings
    limits: Limits
    metrics: Metrics
    drain: Drain
    forwarder: Forwarder
    responses: KeptResponses
    collections: Collections
    reindexes: Reindexes
    sessions: Sessions
    caches: Caches = field(default_factory=Caches)
    rate_limits: RateLimits = field(default_factory=RateLimits)
    viewers: Viewers = field(default_factory=lambda: Viewers("viewers look at this pod already"))
    """Of the live view."""
    watchers: Viewers = field(
        default_factory=lambda: Viewers(
            "clients are told of operations already; ask now and then instead"
        )
    )
    """Of operations."""
    now: Callable[[], float] = field(default=time.time)
    go_back: GoBack | None = None


async def _services(connection: HTTPConnection) -> Services:
    # Of WebSockets too. FastAPI would call what is not async in a thread.
    services: Services = connection.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(_services)]
"""The process's services."""
