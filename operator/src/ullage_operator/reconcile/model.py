"""A model's plan: its own Service, its status and its Events."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ullage_api import conditions
from ullage_api.conditions import Condition, Reason
from ullage_api.desired import claim_mounts, desired_revision
from ullage_api.kinds.memory import Eviction
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import (
    AdapterStatus,
    MemoryStatus,
    ModelDeploymentStatus,
    Placement,
    Residency,
)
from ullage_api.names import HOLDS_LABEL_PREFIX, POOL_LABEL, model_url, pod_name
from ullage_api.wire.pod_report import ReportedRevision
from ullage_operator.reconcile import arms, history, measured, revisions, turns
from ullage_operator.reconcile.findings import condition, finding
from ullage_operator.reconcile.manifests.services import model_service
from ullage_operator.reconcile.observed import ModelObserved, effective_profile
from ullage_operator.reconcile.plan import Apply, EventNote, Plan
from ullage_operator.reconcile.policies import CHAINS
from ullage_operator.reconcile.pool import DELETION_SECONDS, HOLDS, apply_of
from ullage_operator.reconcile.pressure import Pressure, pressure
from ullage_operator.reconcile.quantities import quantised, readable, rfc3339
from ullage_operator.reconcile.snapshot import SETTLE_SECONDS, Snapshot, snapshot
from ullage_operator.reconcile.transitions import transition, transition_event

TAKEN_SECONDS: Final = 30.0
"""How often a name that belongs to somebody else is tried again."""

_NEAREST_FIRST: Final = (
    Residency.RESIDENT,
    Residency.LOADING,
    Residency.UNLOADING,
    Residency.WARM,
    Residency.DISK,
)


def decide_model(observed: ModelObserved) -> Plan:
    """Return what is to be done about one ModelDeployment."""
    if observed.resource.metadata.deletion_timestamp is not None:
        return Plan(why=("it is being deleted; garbage collection removes what it owns",))
    service, waiting = _service(observed)
    seen = snapshot(observed)
    if not seen.is_settled and seen.previous.conditions:
        # A pod that was not heard yet would look like one that lost its model.
        return Plan(
            applies=service, requeue_after=SETTLE_SECONDS, why=("waiting for the pods' reports",)
        )
    remembered = revisions.kept(seen)
    # Status speaks of the revisions as they are once the plan is carried out.
    seen = replace(seen, observed=replace(observed, revisions=remembered.records))
    felt, taken = pressure(seen), _memory(seen)
    calm = _without_breathing(seen, taken)
    status = measured.without_news(seen.previous, desired_status(seen, calm, felt, remembered))
    document = status.to_wire()
    changed = document != seen.previous.to_wire()
    told = _events(seen.previous.conditions or (), status.conditions or ())
    said = frozenset(note.reason for note in told)
    return Plan(
        applies=(*service, *remembered.applies),
        deletes=remembered.deletes,
        status=document if changed else None,
        events=(
            *_eviction_event(seen.previous.memory, status.memory),
            *arms.step_event(seen, status.arms, said),
            *transition_event(seen.previous, status, said),
            *told,
        ),
        requeue_after=(
            DELETION_SECONDS
            if waiting or remembered.is_waiting
            else _next_look(seen, felt, is_held=calm != taken or arms.is_held(seen))
        ),
        # What is good, and what is not to be tried, is for the pods to know.
        concerns_pool=bool(remembered.applies or remembered.deletes) or turns.is_over(seen),
        why=waiting,
    )


def _service(observed: ModelObserved) -> tuple[tuple[Apply, ...], tuple[str, ...]]:
    """Return how the model's Service is brought about, and what must first be gone."""
    if effective_profile(observed.profile, observed.pool.profile) is None:
        return (), ()
    child = observed.service
    if child is not None and child.deleting:
        return (), (f"Service {child.name} is being deleted; it is made again after",)
    write = apply_of(model_service(observed.resource), child)
    return ((write,) if write is not None else ()), ()


def _next_look(s: Snapshot, felt: Pressure, *, is_held: bool) -> float | None:
    looks = [
        TAKEN_SECONDS if s.observed.taken else None,
        None if s.is_settled else SETTLE_SECONDS,
        felt.due,
        s.held_seconds if is_held else None,
    ]
    return min((seconds for seconds in looks if seconds is not None), default=None)


def desired_status(
    s: Snapshot, taken: MemoryStatus, felt: Pressure, remembered: revisions.Kept
) -> ModelDeploymentStatus:
    """Return the whole status that the snapshot amounts to."""
    resource = s.observed.resource
    found = [condition(kind, finding(chain, s), s.generation) for kind, chain in CHAINS]
    found.append(felt.condition)
    current = conditions.merged(s.previous.conditions or (), found, now=rfc3339(s.observed.now))
    active = _active(s)
    shown = active or ReportedRevision(uri=resource.spec.model.uri)
    keeps = _keeps_serving_facts(s, active, found[0])
    before = s.previous
    return ModelDeploymentStatus(
        observed_generation=s.generation,
        conditions=list(current),
        url=model_url(resource.metadata.namespace, resource.metadata.name),
        model=before.model if keeps and before.model else file_name(shown.uri),
        engine=before.engine if keeps else shown.engine,
        context_length=before.context_length if keeps else shown.context_length,
        sha256=before.sha256 if keeps else shown.sha256,
        adapters=before.adapters if keeps else _adapters(shown),
        active_revision=before.active_revision if keeps else shown.revision,
        target_revision=_target_revision(s),
        transition=transition(s),
        revisions=revisions.shown(remembered.records),
        arms=arms.shown(s),
        memory=taken.model_copy(update={"level": felt.level, "level_since": felt.since}),
        acceleration=before.acceleration if keeps else measured.acceleration(shown),
        performance=before.performance if keeps else measured.performance(before, shown),
        placements=_placements(s) or None,
        replicas=len(s.holders),
        ready_replicas=_ready_replicas(s, found[0]),
        selector=selector(resource),
    )


def _adapters(shown: ReportedRevision) -> list[AdapterStatus] | None:
    found = [AdapterStatus(name=a.name, sha256=a.sha256) for a in shown.adapters]
    return found or None


def selector(resource: ModelDeployment) -> str:
    """Return the label selector of the pods that hold a model, as a scaler wants it."""
    holds = f"{HOLDS_LABEL_PREFIX}{resource.metadata.name}={HOLDS}"
    return f"{POOL_LABEL}={resource.spec.pool},{holds}"


def file_name(uri: str) -> str:
    """Return the file that a model's address names, for people."""
    path = re.split(r"[?#]", uri, maxsplit=1)[0]
    if uri.startswith("hf://"):
        path = path.rsplit("@", 1)[0] if "@" in path else path
    last = path.rstrip("/").rsplit("/", 1)[-1]
    return last.removeprefix("file:")[:512] or uri[:512]


def _active(s: Snapshot) -> ReportedRevision | None:
    """Return what answers now, on the lowest pod that answers."""
    return next((h.entry.active for h in s.serving if h.entry is not None), None)


def _keeps_serving_facts(s: Snapshot, active: ReportedRevision | None, ready: Condition) -> bool:
    """Whether what served before is still to be shown, although nobody says so now.

    While pods are away or silent it is the last that is known, and it remembers that the model
    has served. A suspended or refused model serves nothing, and a failed one neither.
    """
    if active is not None or not s.has_served:
        return False
    return ready.reason != Reason.SUSPENDED and ready.status != "False"


def _target_revision(s: Snapshot) -> str | None:
    if s.held is not None:
        # What the pods are asked for is not what the spec asks for.
        profile = effective_profile(s.observed.profile, s.observed.pool.profile)
        mounts = claim_mounts(profile) if profile is not None else {}
        wanted = desired_revision(s.observed.resource, mounts)
        own = next((r for r in s.revisions if history.is_asked_for(r.spec, wanted)), None)
        return own.name if own is not None else s.previous.target_revision
    named = (e.target.revision for e in s.current if e.target is not None and e.target.revision)
    known = next(named, None)
    if known is None and s.previous.observed_generation == s.generation:
        return s.previous.target_revision
    return known


def _memory(s: Snapshot) -> MemoryStatus:
    before = s.previous.memory or MemoryStatus()
    if not s.reported and any(h.is_silent for h in s.holders):
        return before
    residencies = {entry.residency for entry in s.reported}
    residency = next((r for r in _NEAREST_FIRST if r in residencies), Residency.DISK)
    told = [r for e in s.reported for r in (e.active, e.target) if r is not None]
    estimated = max((r.estimated_bytes or 0 for r in told), default=0)
    resident = max((e.active.resident_bytes or 0 for e in s.reported if e.active), default=0)
    if residency not in {Residency.RESIDENT, Residency.UNLOADING}:
        resident = 0
    shown = quantised(resident or None, before.resident_bytes)
    kept = max((e.host_bytes for e in s.reported), default=0)
    return MemoryStatus(
        residency=residency,
        estimated_bytes=quantised(estimated or None, before.estimated_bytes)
        or before.estimated_bytes,
        resident_bytes=shown,
        resident=readable(shown) if shown else None,
        host_bytes=quantised(kept or None, before.host_bytes),
        last_eviction=_last_eviction(s) or before.last_eviction,
    )


def _without_breathing(s: Snapshot, taken: MemoryStatus) -> MemoryStatus:
    """Return the memory with the bytes of before, if they were written only a moment ago.

    Those of another residency or revision are another matter than a little more or less.
    """
    before, active = s.previous.memory, _active(s)
    revision = active.revision if active is not None else None
    if before is None or not s.held_seconds or taken.residency is not before.residency:
        return taken
    if revision != s.previous.active_revision or before.resident_bytes is None:
        return taken
    names = ("estimated_bytes", "resident_bytes", "resident", "host_bytes")
    kept = {name: getattr(before, name) for name in names}
    return taken.model_copy(update=kept)


def _last_eviction(s: Snapshot) -> Eviction | None:
    """Return when it last left memory, on whichever pod that was."""
    known = [e.last_eviction for e in s.reported if e.last_eviction is not None]
    return max(known, key=lambda eviction: eviction.time, default=None)


def _placements(s: Snapshot) -> list[Placement]:
    before = {p.pod: p for p in s.previous.placements or ()}
    result = []
    for holder in (*s.holders, *s.others):
        placed = holder in s.holders
        name = pod_name(s.observed.resource.spec.pool, holder.ordinal)
        entry = holder.entry
        if holder.pod is None or (not placed and entry is None):
            continue
        if entry is None:
            kept = before.get(name) if holder.is_silent else None
            result.append(kept or Placement(pod=name, residency=Residency.DISK))
        elif placed or entry.residency is not Residency.DISK:
            active = entry.active
            revision = active.revision if active is not None else None
            result.append(Placement(pod=name, residency=entry.residency, revision=revision))
    return sorted(result, key=lambda p: p.pod)[:64]


def _ready_replicas(s: Snapshot, ready: Condition) -> int:
    if ready.reason == Reason.REPORTS_MISSING and ready.status == "True":
        return sum(h.is_up for h in s.holders)
    return len(s.answering)


def _eviction_event(
    before: MemoryStatus | None, after: MemoryStatus | None
) -> tuple[EventNote, ...]:
    """Return the Event of a model that has left memory since status was last written."""
    last = after.last_eviction if after is not None else None
    if last is None or (before is not None and before.last_eviction == last):
        return ()
    cause = f" for model {last.beneficiary}" if last.beneficiary else ""
    note = f"left memory{cause}: {readable(last.bytes)}, rule {last.rule}, at {last.time}"
    return (EventNote("Evicted", note),)


def _events(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[EventNote, ...]:
    """Return one Event for each thing that has become so: a new status or reason of a condition."""
    notes: dict[str, EventNote] = {}
    for old, new in conditions.changed(before, after):
        if new.reason == Reason.PENDING or _is_calm_again(old, new):
            continue
        failed = new.status == "False" and new.reason not in _CALM
        warning = failed or new.reason in _WORRYING
        known = notes.get(new.reason)
        if known is None or (warning and not known.warning):
            notes[new.reason] = EventNote(new.reason, new.message, warning)
    return tuple(notes.values())


def _is_calm_again(old: Condition | None, now: Condition) -> bool:
    """Whether memory that was not short before is not short now, which is no news."""
    return now.reason == Reason.MEMORY_AVAILABLE and (old is None or old.status != "True")


_CALM: Final = frozenset(
    {Reason.UP_TO_DATE.value, Reason.SUSPENDED.value, Reason.MEMORY_AVAILABLE.value}
)
_WORRYING: Final = frozenset(
    {
        Reason.DEVICE_FALLBACK.value,
        Reason.PROFILE_MISSING.value,
        Reason.REPORTS_MISSING.value,
        Reason.MEMORY_HIGH.value,
        Reason.MEMORY_CRITICAL.value,
    }
)
