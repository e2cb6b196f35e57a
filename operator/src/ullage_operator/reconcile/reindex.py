"""A reindex job's plan: its finalizer, its worker, its status and its Events.

The pod that owns the collection does the work and decides; what is here tells it what is wanted
(through the pool's document), gives it a worker, and shows what it says. What the conditions say:

- `Complete`: whether the collection is as its spec wanted it. Its reason and message are the
  summary: what the job does, or waits for, or why it ended.
- `Failed`: whether it is over without that, against anybody's wish.
- `Suspended`: whether it waits for somebody: it is paused, or its cutover wants an approval.
- `Verified`: whether the target passed every gate; Unknown until it was tried.
- `Switched`: whether searches use the target.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from ullage_api import conditions
from ullage_api.conditions import Condition, ConditionType, Reason
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.reindex_status import ReindexJobStatus, ReindexPoints
from ullage_api.names import REINDEX_FINALIZER
from ullage_operator.reconcile.findings import condition, finding
from ullage_operator.reconcile.manifests.common import spec_hash
from ullage_operator.reconcile.manifests.reindexing import worker_job
from ullage_operator.reconcile.observed import ReindexObserved, WorkerView
from ullage_operator.reconcile.plan import Apply, Delete, EventNote, Plan, Verb, finalizers
from ullage_operator.reconcile.quantities import rfc3339
from ullage_operator.reconcile.reindex_policies import CHAINS, WORKER_SECONDS
from ullage_operator.reconcile.reindex_view import Seen, seen
from ullage_operator.reconcile.snapshot import SETTLE_SECONDS

STATUS_SECONDS: Final = 10.0
"""Least time between two writes of what changes all the while: counts, rate and ETA."""
LOOK_SECONDS: Final = 15.0
"""How often a job is looked at whose worker should be running, or whose collection is missing."""
DELETION_SECONDS: Final = 1.0
UNTOLD: Final = frozenset({Reason.PENDING, Reason.WAITING_FOR_PODS})
"""Reasons of `Complete` that are not worth an Event."""
BAD: Final = frozenset(
    {
        Reason.UNKNOWN_COLLECTION,
        Reason.WORKER_MISSING,
        Reason.VERIFICATION_FAILED,
        Reason.REPORTS_MISSING,
    }
)
"""Reasons of which an Event is a warning."""
RESTLESS: Final = ("points", "progress", "rate", "eta_seconds", "checkpoint_time")
"""What of a status changes all the while."""


def decide_reindex(observed: ReindexObserved) -> Plan:
    """Return what is to be done about one ReindexJob."""
    s = seen(observed)
    finalizer, worker = _finalizer(s), _worker(s)
    plan = replace(
        worker,
        applies=(*finalizer, *worker.applies),
        concerns_pool=bool(finalizer) or _is_unplaced(s),
    )
    if s.resource.is_deleted and (finalizer or not s.resource.is_held):
        return plan  # it goes, and its worker with it
    if not s.is_settled and s.previous.conditions:
        return _sooner(plan, SETTLE_SECONDS)
    status = _of_now(s) if s.resource.is_over else desired_status(s)
    wait = _held_seconds(s) if _is_calm(s.previous, status) else 0.0
    written = s.previous if wait else status
    changed = written.to_wire() != s.previous.to_wire()
    expired = _expired(s, status)
    plan = replace(
        plan,
        deletes=(*plan.deletes, *expired[0]),
        status=written.to_wire() if changed else None,
        events=_events(s.previous, written),
    )
    return _sooner(plan, wait if written != status else None, expired[1], _look_again(s))


def _sooner(plan: Plan, *seconds: float | None) -> Plan:
    """Return the plan, looked at again after the shortest of some times."""
    waits = [each for each in (plan.requeue_after, *seconds) if each]
    return replace(plan, requeue_after=min(waits, default=None))


def _look_again(s: Seen) -> float | None:
    if s.is_over:
        return None
    if s.observed.collection is None or s.needs_worker:
        return LOOK_SECONDS
    return None if s.is_settled else SETTLE_SECONDS


# --- Finalizer --------------------------------------------------------------------------------


def _finalizer(s: Seen) -> tuple[Apply, ...]:
    """Return how the finalizer comes and goes: it holds the resource until the job is over."""
    has = s.resource.is_held
    wanted = not s.resource.is_over
    if s.resource.is_deleted:
        wanted = has and not _may_go(s)
    if has == wanted:
        return ()
    why = "its deletion cancels it first" if wanted else "nothing is left to be cancelled"
    return (finalizers(s.resource, [REINDEX_FINALIZER] if wanted else [], why),)


def _may_go(s: Seen) -> bool:
    """Whether a job that is being deleted has nothing left that would have to be cancelled."""
    if s.is_over or s.observed.collection is None:
        return True
    # No pod was ever told of it.
    return s.placed is None and s.entry is None and s.previous.phase is None


def _is_unplaced(s: Seen) -> bool:
    """Whether the pool's document is to speak of it and does not, or the other way round."""
    told = s.resource.is_held and not s.resource.is_over
    if s.observed.collection is None:
        return False
    if s.placed is None:
        return told
    deleted = s.placed.deleted != s.resource.is_deleted
    return not told or deleted or s.placed.generation != s.resource.metadata.generation


# --- Worker -----------------------------------------------------------------------------------


def _worker(s: Seen) -> Plan:
    """Return how the worker's Job comes and goes."""
    worker, profile, collection = s.observed.worker, s.profile, s.observed.collection
    if worker is not None and worker.child.deleting:
        return Plan(requeue_after=DELETION_SECONDS)
    if not s.needs_worker or profile is None or collection is None:
        gone = worker is not None and (s.entry is not None or s.is_over or collection is None)
        why = "there is nothing for it to do"
        return Plan(deletes=(_delete(worker, why),)) if gone and worker is not None else Plan()
    manifest = worker_job(s.resource, collection.spec.pool, profile, s.observed.secret_name)
    if worker is None:
        return Plan(applies=(Apply(Verb.CREATE, manifest, "the job has no worker"),))
    if worker.child.spec_hash != spec_hash(manifest):
        return Plan(
            deletes=(_delete(worker, "what is wanted has changed"),), requeue_after=DELETION_SECONDS
        )
    if worker.is_over and worker.age_seconds >= WORKER_SECONDS / 2:
        return Plan(
            deletes=(_delete(worker, "it has ended and is needed"),), requeue_after=DELETION_SECONDS
        )
    return Plan()


def _delete(worker: WorkerView, why: str) -> Delete:
    child = worker.child
    return Delete(child.api_version, child.kind, child.name, child.uid, why)


# --- Status -----------------------------------------------------------------------------------


def desired_status(s: Seen) -> ReindexJobStatus:
    """Return the whole status that is so; what the pod does not say stays as it was."""
    before, entry = s.previous, s.entry
    generation = s.resource.metadata.generation
    found = [condition(kind, finding(chain, s), generation) for kind, chain in CHAINS]
    current = conditions.merged(before.conditions or (), found, now=rfc3339(s.observed.now))
    common = before.model_copy(
        update={"observed_generation": generation, "conditions": list(current)}
    )
    if entry is None:
        return common
    said = {
        "phase": entry.phase,
        "plan": entry.plan,
        "plan_reason": entry.plan_reason or None,
        "target": entry.target,
        "points": entry.points,
        "progress": progress(entry.points),
        "rate": None if entry.phase.is_over else entry.rate,
        "eta_seconds": None if entry.phase.is_over else entry.eta_seconds,
        "verification": entry.verification,
        "checkpoint_time": entry.checkpoint_time,
        "start_time": before.start_time or entry.started_at,
        "completion_time": _completion(s),
    }
    return common.model_copy(update=said)


def _completion(s: Seen) -> str | None:
    entry = s.entry
    if entry is None or not entry.phase.is_over:
        return None
    return s.previous.completion_time or entry.finished_at or rfc3339(s.observed.now)


def progress(points: ReindexPoints) -> str | None:
    """Return how much of the copying is done, in percent; never all of it before it is."""
    if points.total is None:
        return None
    if points.copied >= points.total:
        return "100%"
    return f"{100 * points.copied // points.total}%"


def _of_now(s: Seen) -> ReindexJobStatus:
    """Return the status of a job that is over: nothing of it changes but what spec it speaks of."""
    generation = s.resource.metadata.generation
    kept = [
        each.model_copy(update={"observed_generation": generation})
        for each in s.previous.conditions or ()
    ]
    update = {"observed_generation": generation, "conditions": kept}
    return s.previous.model_copy(update=update)


def _is_calm(before: ReindexJobStatus, after: ReindexJobStatus) -> bool:
    """Whether a status differs at most in what changes all the while."""
    blank = dict.fromkeys(RESTLESS)
    said, says = (_words(each.model_copy(update=blank)) for each in (before, after))
    return said == says


def _words(status: ReindexJobStatus) -> dict[str, object]:
    """Return a status without the messages of its conditions, which have numbers that rise."""
    plain = status.to_wire()
    for each in plain.get("conditions", ()):
        each.pop("message")
    return plain


def _held_seconds(s: Seen) -> float:
    """Return for how long yet counts are shown as they were when status was last written."""
    written = s.observed.written
    if written is None:
        return 0.0
    return max(0.0, STATUS_SECONDS - (s.observed.now - written).total_seconds())


def _expired(s: Seen, status: ReindexJobStatus) -> tuple[tuple[Delete, ...], float | None]:
    """Return the resource's own deletion, once its time is over, and else when that is."""
    kept = s.resource.spec.ttl_seconds_after_finished
    phase: ReindexPhase | None = status.phase
    over = phase is not None and phase.is_over
    if kept is None or not over or status.completion_time is None or s.resource.is_deleted:
        return (), None
    age = (s.observed.now - datetime.fromisoformat(status.completion_time)).total_seconds()
    # Its status is first written with the end, and its finalizer gone.
    if age < kept or s.resource.is_held or not s.resource.is_over:
        return (), max(DELETION_SECONDS, kept - age)
    metadata, resource = s.resource.metadata, s.resource
    why = f"it was over for {kept} s"
    gone = Delete(resource.api_version, resource.kind, metadata.name, metadata.uid, why)
    return (gone,), None


def rolled_back(jobs: Iterable[ReindexJob]) -> frozenset[tuple[str, int]]:
    """Return what jobs had brought to its spec before somebody went back: name and generation.

    A pod forgets a job that is over; its resource does not.
    """
    return frozenset(
        (job.spec.collection, target.generation)
        for job in jobs
        if job.status is not None
        and (target := job.status.target) is not None
        and target.generation is not None
        and (said := conditions.find(job.status.conditions or (), ConditionType.COMPLETE))
        and said.reason == Reason.ROLLED_BACK
        and job.is_over
    )


# --- Events -----------------------------------------------------------------------------------


def _events(before: ReindexJobStatus, after: ReindexJobStatus) -> tuple[EventNote, ...]:
    """Return one Event for each thing that has become so."""
    notes: dict[str, EventNote] = {}
    for _, new in conditions.changed(before.conditions or (), after.conditions or ()):
        if _is_news(new):
            known = notes.get(new.reason)
            warning = _is_bad(new) or (known is not None and known.warning)
            message = known.message if known is not None else new.message
            notes[new.reason] = EventNote(new.reason, message, warning)
    return tuple(notes.values())


def _is_news(new: Condition) -> bool:
    if new.type == ConditionType.COMPLETE:
        return new.reason not in UNTOLD
    if new.type == ConditionType.VERIFIED:
        return new.status != "Unknown"
    return new.status == "True" and new.type in {ConditionType.FAILED, ConditionType.SWITCHED}


def _is_bad(new: Condition) -> bool:
    return new.type == ConditionType.FAILED or new.reason in BAD
