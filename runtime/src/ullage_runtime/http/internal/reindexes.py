"""The paths of `/internal` by which workers drive reindex jobs."""

from typing import Annotated, Final

from fastapi import Path, Query

from ullage_runtime.core.errors import (
    CollectionUnavailable,
    DiskFull,
    InvalidRequest,
    LeaseHeld,
    ReindexConflict,
    ReindexNotFound,
    ReindexNotRunning,
    RequestTimeout,
    StaleLease,
)
from ullage_runtime.http.openapi import CALLED, refusals
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.retrieval.points import checked_id
from ullage_runtime.retrieval.reindex.wire import (
    MAX_VERSIONS,
    CheckpointRequest,
    Done,
    FailureRequest,
    Hashes,
    HashesRequest,
    Lease,
    LeaseRequest,
    PageRequest,
    PageResult,
    Probes,
    ProbesRequest,
    Schema,
    VerificationRequest,
    Versions,
    VersionsRequest,
)

TAG = "Reindex workers"

MOST_ID: Final = 2**64 - 1
ID_PATTERN: Final = "^(?:[0-9]{1,20}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$"

router = Router(prefix="/internal/v1/reindexes/{job}", tag=TAG)

Job = Annotated[str, Path(min_length=1, max_length=128)]
READ = (
    *CALLED,
    InvalidRequest,
    ReindexNotFound,
    ReindexNotRunning,
    CollectionUnavailable,
    RequestTimeout,
)
DRIVE = (*READ, StaleLease)


@router.post("/lease", responses=refusals(*DRIVE, LeaseHeld))
async def take_lease(job: Job, body: LeaseRequest, services: ServicesOf) -> Lease:
    """Give a worker the right to drive a job, renew it, or take it back."""
    return await services.reindexes.find(job).lease(body)


@router.post("/pages", responses=refusals(*DRIVE, DiskFull))
async def copy_page(job: Job, body: PageRequest, services: ServicesOf) -> PageResult:
    """Copy a page of points to the target; it is on its disk when this answers."""
    return await services.reindexes.find(job).page(body)


@router.put("/checkpoint", responses=refusals(*DRIVE, ReindexConflict))
async def keep_checkpoint(job: Job, body: CheckpointRequest, services: ServicesOf) -> Done:
    """Keep how far the copy has come."""
    await services.reindexes.find(job).keep(body)
    return Done()


@router.get("/versions", responses=refusals(*READ))
async def list_versions(
    job: Job,
    services: ServicesOf,
    physical: Annotated[str, Query(max_length=256)],
    after: Annotated[str | None, Query(max_length=64, pattern=ID_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_VERSIONS)] = MAX_VERSIONS,
) -> Versions:
    """Return a page of live points with their versions."""
    first = None
    if after is not None:
        # Nothing comes after the largest number that there is.
        first = checked_id(min(int(after), MOST_ID) if after.isdigit() else after, "after")
    return await services.reindexes.find(job).versions(physical, first, limit)


@router.post("/versions", responses=refusals(*READ))
async def versions_of_points(job: Job, body: VersionsRequest, services: ServicesOf) -> Versions:
    """Return versions of certain points, once both sides have all that is accepted."""
    return await services.reindexes.find(job).versions_of(body.physical, body.ids)


@router.post("/hashes", responses=refusals(*READ))
async def hashes_of_points(job: Job, body: HashesRequest, services: ServicesOf) -> Hashes:
    """Return what distinguishes the contents of certain points."""
    return await services.reindexes.find(job).hashes(body.physical, body.ids)


@router.post("/probes", responses=refusals(*DRIVE))
async def probe_target(job: Job, body: ProbesRequest, services: ServicesOf) -> Probes:
    """Search the target for some of its own points."""
    return await services.reindexes.find(job).probes(body)


@router.get("/schema", responses=refusals(*READ))
async def get_schema(job: Job, services: ServicesOf) -> Schema:
    """Return how the target is laid out and what it is to be."""
    return await services.reindexes.find(job).schema()


@router.post("/verification", responses=refusals(*DRIVE))
async def keep_verification(job: Job, body: VerificationRequest, services: ServicesOf) -> Done:
    """Keep what the verification came to."""
    await services.reindexes.find(job).judge(body)
    return Done()


@router.post("/failure", responses=refusals(*DRIVE))
async def give_up(job: Job, body: FailureRequest, services: ServicesOf) -> Done:
    """Give the job up: no repetition would help."""
    await services.reindexes.find(job).fail(body)
    return Done()
