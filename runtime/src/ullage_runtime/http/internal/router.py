"""The paths of `/internal`."""

from typing import Annotated

from fastapi import Query, Request

from ullage_api.kinds.base import KubeModel
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.core.errors import BodyTooLarge, InvalidRequest, ShuttingDown
from ullage_runtime.http.disconnect import while_connected
from ullage_runtime.http.draining import shutting_down
from ullage_runtime.http.internal.service import DesiredDocuments
from ullage_runtime.http.openapi import CALLED, refusals
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf

TAG = "Internal"

router = Router(prefix="/internal/v1", tag=TAG)

MAX_POLL_SECONDS = 60


class Acknowledgement(KubeModel):
    """What became of a desired document."""

    accepted: bool
    acknowledged: int
    """Sequence of the document in effect."""
    acknowledged_hash: str


@router.put("/desired", responses=refusals(*CALLED, InvalidRequest, BodyTooLarge))
async def put_desired(
    document: PoolDesired, request: Request, services: ServicesOf
) -> Acknowledgement:
    """Accept a desired document; an older one than that in effect changes nothing."""
    documents: DesiredDocuments = request.app.state.documents
    try:
        accepted = await documents.accept(document)
    except ValueError as error:
        raise InvalidRequest(f"the document cannot be meant for this pod: {error}") from error
    desired = services.models.desired
    return Acknowledgement(
        accepted=accepted,
        acknowledged=desired.sequence if desired else 0,
        acknowledged_hash=desired.hash if desired else "",
    )


@router.get(
    "/report",
    response_model_exclude_none=True,
    responses=refusals(*CALLED, InvalidRequest, ShuttingDown),
)
async def get_report(
    request: Request,
    services: ServicesOf,
    after: Annotated[int, Query(ge=-1)] = -1,
    timeout_seconds: Annotated[
        float, Query(alias="timeoutSeconds", ge=0, le=MAX_POLL_SECONDS)
    ] = 0.0,
) -> PodReport:
    """Return the pod's report: now, or as soon as its sequence exceeds `after`."""
    changed = services.models.changed(after, timeout_seconds)
    report = await while_connected(request.receive, changed, over=services.drain.over)
    if report.sequence <= after and services.drain.stopping.is_set():
        # Ending models answer polls at once; a 503 makes the poller pause before the next one.
        raise shutting_down()
    return report
