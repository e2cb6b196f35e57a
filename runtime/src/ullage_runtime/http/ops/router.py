"""Probes and metrics."""

import asyncio
import contextlib
from typing import Final

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from ullage_runtime.http.openapi import CALLED, refusals
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Operations"

router = Router(tag=TAG)

SAMPLE_SECONDS: Final = 2.0
"""How long metrics wait for the engines' own numbers."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Probed(BaseModel):
    """The answer to a probe."""

    status: str


@router.get("/livez")
async def livez() -> Probed:
    """Say that the process answers."""
    return Probed(status="ok")


@router.get(
    "/readyz",
    response_model=Probed,
    responses={503: {"model": Probed, "description": "Not yet, or no longer."}},
)
async def readyz(services: ServicesOf) -> Response:
    """Say whether requests may be sent here: a desired document was read and nothing is ending.

    Models are no part of it: a pod whose models load is ready to hold their requests.
    """
    if services.drain.leaving:
        return JSONResponse({"status": "shutting down"}, 503)
    if services.models.desired is None:
        return JSONResponse({"status": "waiting for the desired document"}, 503)
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Metrics in Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **refusals(*CALLED),
    },
)
async def metrics(services: ServicesOf) -> Response:
    """Return Prometheus metrics."""
    with contextlib.suppress(TimeoutError):
        # What engines said last will do when one of them does not answer.
        async with asyncio.timeout(SAMPLE_SECONDS):
            await services.models.sample()
    return Response(services.metrics.text(), headers={"Content-Type": METRICS_TYPE})
