"""What the pod's report says of a reindex job."""

import math
from datetime import UTC, datetime
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_api.kinds.collection_status import EmbeddedBy
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.reindex_status import ReindexPoints, ReindexTarget, ReindexVerification
from ullage_api.wire.pod_report import ReportedReindex
from ullage_runtime.retrieval.profiles import profile_of
from ullage_runtime.retrieval.reindex.job import Job
from ullage_runtime.retrieval.reindex.record import JobRecord

MOST_CHARACTERS: Final = 1000
_LEAVES: Final = frozenset({ReindexPhase.ROLLING_BACK, ReindexPhase.CANCELLING})


def reported(job: Job) -> ReportedReindex:
    """Return a job's entry in the pod's report."""
    record = job.record
    reason, message = _why(job)
    rate, eta = _pace(job)
    return ReportedReindex(
        name=record.name,
        uid=record.uid if record.is_documented else "",
        generation=record.generation,
        collection=record.spec.collection,
        phase=record.phase,
        reason=reason,
        message=message[:MOST_CHARACTERS],
        plan=record.plan,
        plan_reason=record.plan_reason[:MOST_CHARACTERS],
        target=_target(record),
        points=ReindexPoints(
            total=record.total if record.wanted is not None else None,
            copied=_done(job),
            caught_up=job.caught_up,
            failed=job.failed,
        ),
        rate=rate,
        eta_seconds=eta,
        verification=_verification(record),
        checkpoint_time=_moment(record.checkpoint_time),
        switched=_is_switched(job),
        started_at=_moment(record.started),
        finished_at=_moment(record.finished),
    )


def _done(job: Job) -> int:
    """Return how many points need no copying any more.

    What is written or deleted meanwhile reaches the target by that, and once the copy has ended
    nothing of it is left.
    """
    record = job.record
    if record.copied_tip is None:
        return min(record.total, record.copied + record.skipped)
    return max(0, record.total - job.failed)


def _pace(job: Job) -> tuple[int | None, int | None]:
    """Return points per second, and seconds that are left; None while nothing is copied.

    A page can take longer than what the worker looks back at: then it is the rate since copying
    began.
    """
    record = job.record
    if record.phase is not ReindexPhase.COPYING:
        return None, None
    seen = record.copied + record.skipped
    seconds = job.now() - record.since
    rate = record.rate or (seen / seconds if seconds > 0 else 0.0)
    if rate <= 0:
        return 0, None
    return max(1, round(rate)), math.ceil(max(0, record.total - seen) / rate)


def _why(job: Job) -> tuple[Reason, str]:
    record = job.record
    if record.is_over or record.phase in _LEAVES:
        reason = record.reason or (
            Reason.SUCCEEDED if record.phase is ReindexPhase.SUCCEEDED else Reason.CANCELLED
        )
        return reason, record.message
    return job.waiting


def _is_switched(job: Job) -> bool:
    record = job.record
    if record.is_over:
        return record.phase is ReindexPhase.SUCCEEDED and record.switches
    scene = job.scene
    return scene is not None and record.switches and scene.routing.read == record.target


def _target(record: JobRecord) -> ReindexTarget | None:
    wanted = record.wanted
    if wanted is None:
        return None
    made = record.made
    model = None
    if made:
        model = EmbeddedBy.model_validate(
            {
                "name": made["name"],
                "revision": made.get("revision"),
                "dimensions": made.get("dimensions"),
            }
        )
    return ReindexTarget(
        generation=record.wanted_generation or None,
        physical_collection=record.target,
        epoch=record.epoch,
        model=model,
        profile=profile_of(wanted).value,
    )


def _verification(record: JobRecord) -> ReindexVerification | None:
    if record.verified_at is None:
        return None
    known = {f.alias or name for name, f in ReindexVerification.model_fields.items()}
    given: dict[str, Any] = {k: _whole(v) for k, v in record.verification.items() if k in known}
    given["message"] = str(given.get("message") or "")[:MOST_CHARACTERS]
    return ReindexVerification.model_validate(
        {"passed": not record.verified_failures, **given, "time": _moment(record.verified_at)}
    )


def _whole(value: object) -> object:
    return round(value) if isinstance(value, float) else value


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
