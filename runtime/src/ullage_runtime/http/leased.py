"""Answers that are one JSON object, made while a model is leased: vectors, scores, tokens."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ullage_api.wire.pool_desired import DesiredModel
from ullage_runtime.core.errors import ServingError
from ullage_runtime.http.auth import Key
from ullage_runtime.http.disconnect import while_connected
from ullage_runtime.http.errors import RateLimitExceeded
from ullage_runtime.http.middleware import ALLOWANCE, KEY
from ullage_runtime.http.rate_limits import Allowance
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.http.services import Services
from ullage_runtime.models.ports import Lease

T = TypeVar("T")


def is_elsewhere(services: Services, model: DesiredModel) -> bool:
    """Tell whether another pod answers for a model; a suspended one is refused by any."""
    return not model.suspended and not services.models.is_local(model)


def charged(
    services: Services, request: Request, model: DesiredModel, tokens: int
) -> Allowance | None:
    """Charge the caller's budgets, or raise RateLimitExceeded; None where there are no limits.

    `tokens` is how many the request is estimated to take.
    """
    key: Key = request.scope[KEY]
    allowance = services.rate_limits.allowance(model, key.id)
    if allowance is not None:
        request.scope[ALLOWANCE] = allowance
        try:
            allowance.take(tokens)
        except RateLimitExceeded:
            services.metrics.rate_limited(model.name)
            raise
    return allowance


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """What a request asks of its model: work under a lease, and what is written of it after."""

    work: Callable[[Lease], Awaitable[T]]
    write: Callable[[T], Awaitable[bytes]]
    """Returns the answer's JSON text."""
    tokens: Callable[[T], int]
    """Returns the tokens that the work took."""
    estimate: int
    """Tokens that it is estimated to take."""
    beside: bool = False
    """Whether it is done beside the engine's work, and so waits for no room in it."""


async def leased_answer(
    services: Services, request: Request, model: DesiredModel, asked: Asked[T]
) -> Response:
    """Return the answer to a request, from here or from a pod that holds the model."""
    if is_elsewhere(services, model):
        return await services.forwarder.answer(request, model, services.models.desired)
    allowance = charged(services, request, model, asked.estimate)
    key: Key = request.scope[KEY]
    return LeasedAnswer(services, model, asked, allowance, key.id)


class LeasedAnswer(Response, Generic[T]):
    """Asks the model once it is sent; a client that leaves, or a shutdown, ends the work."""

    def __init__(
        self,
        services: Services,
        model: DesiredModel,
        asked: Asked[T],
        allowance: Allowance | None,
        tenant: str,
    ) -> None:
        super().__init__()
        self._tenant = tenant
        self._services = services
        self._model = model
        self._asked = asked
        self._allowance = allowance
        self._spent = 0
        self._over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work and send its answer; raises ServingError before anything is sent."""
        self._services.drain.add(self)
        try:
            body = await while_connected(receive, self._made(), over=self._over)
        finally:
            self._services.drain.discard(self)
            if self._allowance is not None:
                self._allowance.settle(self._spent)
        await Response(body, media_type="application/json")(scope, receive, send)

    def abort(self, error: ServingError) -> None:
        """End it now."""
        del error
        self._over.set()

    async def _made(self) -> bytes:
        asked = self._asked
        done = await under_lease(
            self._services.models,
            self._model,
            asked.work,
            tenant=self._tenant,
            beside=asked.beside,
        )
        self._spent = asked.tokens(done)
        self._services.metrics.tokens(self._model.name, self._spent, 0)
        return await asked.write(done)
