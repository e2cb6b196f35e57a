"""The paths of reindex jobs, for clients."""

from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Path, Request

from ullage_api.wire.pod_report import ReportedReindex
from ullage_runtime.core.errors import (
    CollectionNotFound,
    CollectionUnavailable,
    Forbidden,
    InvalidRequest,
    ReindexConflict,
    ReindexNotFound,
)
from ullage_runtime.http.auth import Key
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.openapi import CALLED, SENT, refusals
from ullage_runtime.http.reindexes.schema import (
    DeletedReindex,
    ReindexBody,
    ReindexChange,
    ReindexList,
)
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import Services, ServicesOf
from ullage_runtime.retrieval.reindex.reporting import reported

TAG = "Reindexes"

router = Router(prefix="/v1/reindexes", tag=TAG)

Name = Annotated[str, Path(min_length=1, max_length=128)]
READ = (*CALLED, Forbidden, InvalidRequest, ReindexNotFound)
CHANGE = (*READ, *SENT, ReindexConflict)


class Verb(StrEnum):
    """What can be asked of a job by one word."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    APPROVE = "approve"
    ROLLBACK = "rollback"


_WISHES: Final[dict[Verb, dict[str, Any]]] = {
    Verb.PAUSE: {"suspend": True},
    Verb.RESUME: {"suspend": False},
    Verb.CANCEL: {"cancel": True},
    Verb.APPROVE: {"approve": True},
    Verb.ROLLBACK: {"rollback": True},
}


def _check(services: Services, request: Request, collection: str) -> None:
    """Whoever may use a collection's models may reindex it."""
    key: Key = request.scope[KEY]
    if collection in services.collections.names():
        held = services.collections.held(collection)
        for model in {held.desired.spec.embedding.model_deployment, *held.models}:
            key.check(model)


@router.get("", responses=refusals(*CALLED), response_model_exclude_none=True)
async def list_reindexes(request: Request, services: ServicesOf) -> ReindexList:
    """List the reindex jobs of the collections that the key may use."""
    found = []
    for each in services.reindexes.reported():
        try:
            _check(services, request, each.collection)
        except Forbidden:
            continue
        found.append(each)
    return ReindexList(reindexes=found)


@router.post(
    "", status_code=201, responses=refusals(*CHANGE, CollectionNotFound, CollectionUnavailable),
    response_model_exclude_none=True,
)  # fmt: skip
async def start_reindex(
    body: ReindexBody, request: Request, services: ServicesOf
) -> ReportedReindex:
    """Begin to bring a collection to its own spec."""
    _check(services, request, body.spec.collection)
    return reported(await services.reindexes.create(body.name, body.spec))


@router.get("/{job}", responses=refusals(*READ), response_model_exclude_none=True)
async def get_reindex(job: Name, request: Request, services: ServicesOf) -> ReportedReindex:
    """Say how a reindex job stands."""
    found = services.reindexes.find(job).job
    _check(services, request, found.record.spec.collection)
    return reported(found)


@router.patch("/{job}", responses=refusals(*CHANGE), response_model_exclude_none=True)
async def change_reindex(
    job: Name, body: ReindexChange, request: Request, services: ServicesOf
) -> ReportedReindex:
    """Change how fast a job goes, or which goes first."""
    found = services.reindexes.find(job).job
    _check(services, request, found.record.spec.collection)
    wishes = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return reported(await services.reindexes.wish(job, wishes))


@router.delete("/{job}", responses=refusals(*CHANGE))
async def forget_reindex(job: Name, request: Request, services: ServicesOf) -> DeletedReindex:
    """Forget a job that is over."""
    found = services.reindexes.find(job).job
    _check(services, request, found.record.spec.collection)
    await services.reindexes.delete(job)
    return DeletedReindex(name=job)


@router.post("/{job}/{verb}", responses=refusals(*CHANGE), response_model_exclude_none=True)
async def ask_of_reindex(
    job: Name, verb: Verb, request: Request, services: ServicesOf
) -> ReportedReindex:
    """Pause, resume, cancel, approve or roll back a job."""
    found = services.reindexes.find(job).job
    _check(services, request, found.record.spec.collection)
    return reported(await services.reindexes.wish(job, _WISHES[verb]))
