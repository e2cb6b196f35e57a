"""What is said of a reindex job's conditions, by chains of which the first that speaks decides."""
# ruff: noqa: D401 - a policy's docstring names the state it speaks of, as its sentence would

from collections.abc import Callable
from typing import Final

from ullage_api import conditions
from ullage_api.conditions import ConditionType, Reason
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_operator.reconcile.findings import Finding, Status
from ullage_operator.reconcile.reindex_view import Seen

WORKER_SECONDS: Final = 60.0
"""How long a worker may take until it runs."""

Policy = Callable[[Seen], Finding | None]


def unknown_collection(s: Seen) -> Finding | None:
    """There is no such collection."""
    if s.observed.collection is not None:
        return None
    name, known = s.resource.spec.collection, ", ".join(s.observed.known) or "none"
    message = f"there is no VectorCollection {name!r}; collections here: {known}"
    return Finding("False", Reason.UNKNOWN_COLLECTION, message)


def refused_collection(s: Seen) -> Finding | None:
    """The collection's pool is unknown, or cannot hold it."""
    collection = s.observed.collection
    if collection is None:
        return None
    if s.profile is None:
        pool = collection.spec.pool
        return Finding("False", Reason.UNKNOWN_POOL, f"there is no pool {pool!r} to work in")
    found = s.observed.pool.collection_refusals.get(collection.metadata.name)
    if found is None or found.reason is not Reason.POOL_HAS_REPLICAS:
        return None
    return Finding("False", found.reason, found.message)


def pod_away(s: Seen) -> Finding | None:
    """The collection's pod is not up; what is done is on its volume."""
    if s.is_up:
        return None
    name = s.pod.name if s.pod is not None else "the collection's pod"
    return Finding("False", Reason.WAITING_FOR_PODS, f"{name} is not up; the job goes on with it")


def silent(s: Seen) -> Finding | None:
    """The pod is up and has not reported for a while: what was so before is believed."""
    view = s.view
    if view is None or not view.is_settled or view.fresh is not None:
        return None
    message = f"pod {view.pod} has not reported for a while"
    return Finding("False", Reason.REPORTS_MISSING, message)


def pending(s: Seen) -> Finding | None:
    """The pod has not said anything of it yet."""
    if s.entry is not None:
        return None
    return Finding("False", Reason.PENDING, "its pod has not seen the job yet")


def worker_missing(s: Seen) -> Finding | None:
    """The worker should run and does not."""
    worker = s.observed.worker
    if not s.needs_worker or worker is None or worker.is_running:
        return None
    if worker.age_seconds < WORKER_SECONDS:
        return None
    message = (
        f"Job {worker.child.name} has had no running pod for {int(worker.age_seconds)} s; see "
        f"kubectl describe job {worker.child.name}"
    )
    return Finding("False", Reason.WORKER_MISSING, message)


def told(s: Seen) -> Finding:
    """What its pod says."""
    entry = s.entry
    if entry is None:
        return Finding("False", Reason.PENDING, "its pod has not seen the job yet")
    done: Status = "True" if entry.phase is ReindexPhase.SUCCEEDED else "False"
    return Finding(done, entry.reason, entry.message or entry.phase.value)


SUMMARY: Final[tuple[Policy, ...]] = (
    unknown_collection,
    refused_collection,
    pod_away,
    silent,
    pending,
    worker_missing,
    told,
)


def _summary(s: Seen) -> Finding:
    return next(said for policy in SUMMARY if (said := policy(s)) is not None)


def unheard(s: Seen, kind: ConditionType) -> Finding | None:
    """Nobody says, so what was known stays so."""
    if s.entry is not None:
        return None
    before = conditions.find(s.previous.conditions or (), kind)
    if before is None:
        return None
    return Finding(before.status, Reason(before.reason), before.message)


def failed(s: Seen) -> Finding:
    """It is over, and not as anybody wished; or it is not."""
    kept = unheard(s, ConditionType.FAILED)
    if kept is not None:
        return kept
    entry = s.entry
    if entry is not None and entry.phase is ReindexPhase.FAILED:
        return Finding("True", entry.reason, entry.message)
    said = _summary(s)
    return Finding("False", said.reason, "it has not failed")


def suspended(s: Seen) -> Finding:
    """It waits for somebody; or it does not."""
    kept = unheard(s, ConditionType.SUSPENDED)
    if kept is not None:
        return kept
    entry = s.entry
    if entry is not None and not entry.phase.is_over:
        paused = entry.phase is ReindexPhase.PAUSED or entry.reason is Reason.SUSPENDED
        if paused or entry.reason is Reason.WAITING_FOR_APPROVAL:
            return Finding("True", entry.reason, entry.message or "it is paused")
    said = _summary(s)
    return Finding("False", said.reason, "it does not wait for anybody")


def verified(s: Seen) -> Finding:
    """Its target passed every gate, or did not, or was not tried yet."""
    kept = unheard(s, ConditionType.VERIFIED)
    if kept is not None:
        return kept
    found = s.entry.verification if s.entry is not None else None
    if found is None:
        return Finding("Unknown", Reason.PENDING, "it has not been verified")
    if found.passed:
        return Finding("True", Reason.VERIFIED, found.message or "it passed every gate")
    return Finding("False", Reason.VERIFICATION_FAILED, found.message or "it did not pass a gate")


def switched(s: Seen) -> Finding:
    """Searches use its target; or they do not."""
    kept = unheard(s, ConditionType.SWITCHED)
    if kept is not None:
        return kept
    entry = s.entry
    if entry is not None and entry.switched:
        target = entry.target.physical_collection if entry.target is not None else None
        return Finding("True", Reason.SWITCHED, f"searches use {target or 'the new collection'}")
    said = _summary(s)
    return Finding("False", said.reason, "searches use what they used before")


CHAINS: Final[tuple[tuple[ConditionType, tuple[Policy, ...]], ...]] = (
    (ConditionType.COMPLETE, SUMMARY),
    (ConditionType.FAILED, (failed,)),
    (ConditionType.SUSPENDED, (suspended,)),
    (ConditionType.VERIFIED, (verified,)),
    (ConditionType.SWITCHED, (switched,)),
)
