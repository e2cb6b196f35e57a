"""A collection's plan: its finalizer, its status and its Events.

What the conditions say:

- `Accepted`: whether the spec can be acted on at all.
- `InSync`: whether the collection is built as the spec wants it; what only a reindex would change
  is left as it is, and named.
- `Indexed`: whether the store has nothing left to build.
- `Ready`: whether it answers. Unknown while it is being opened or its pod is away, False when it is
  refused or its store cannot be used.
"""
# ruff: noqa: D401 - a policy's docstring names the state it speaks of, as its sentence would

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ullage_api import conditions
from ullage_api.checks import conflict_message, model_problem
from ullage_api.conditions import Condition, ConditionType, Reason
from ullage_api.kinds.collection_status import EmbeddedBy, VectorCollectionStatus
from ullage_api.kinds.reindex_job import proposed_job
from ullage_api.kinds.vector_collection import DeletionPolicy, VectorCollection
from ullage_api.names import COLLECTION_FINALIZER, collection_url, pod_name
from ullage_api.wire.pod_report import CollectionState
from ullage_operator.reconcile.collection_names import taken_aliases, without_aliases
from ullage_operator.reconcile.collection_view import Seen, seen
from ullage_operator.reconcile.findings import (
    Finding,
    Status,
    accepted,
    condition,
    finding,
    unknown_pool,
)
from ullage_operator.reconcile.observed import (
    CollectionObserved,
    PoolObserved,
    Refusal,
    profile_in_effect,
)
from ullage_operator.reconcile.plan import Apply, EventNote, Plan, finalizers
from ullage_operator.reconcile.quantities import rfc3339
from ullage_operator.reconcile.snapshot import SETTLE_SECONDS, held_seconds

Policy = Callable[[Seen], Finding | None]

COUNTS: Final = ("points", "documents", "indexed_vectors", "pending_changes", "recall_percent")
"""What of a status comes and goes with the traffic."""


def refusals(observed: PoolObserved) -> dict[str, Refusal]:
    """Return the collections of a pool that cannot be acted on, with what to tell them.

    One whose model is missing is handed to the pod all the same: it has its documents and its
    words, and the model may come.
    """
    profile = profile_in_effect(observed)
    models = [m for m in observed.members if m.metadata.deletion_timestamp is None]
    conflicts = taken_aliases(filter(is_wanted, observed.collections))
    found: dict[str, Refusal] = {}
    for collection in observed.collections:
        name = collection.metadata.name
        if profile is not None and profile.replicas.max > 1:
            found[name] = Refusal(
                Reason.POOL_HAS_REPLICAS,
                f"pool {observed.pool!r} may have {profile.replicas.max} pods, and collections "
                "need a pool with one, which orders their writes; use a pool whose profile has "
                "replicas.max 1",
            )
        elif problem := model_problem(collection.spec, models):
            found[name] = Refusal(Reason.UNKNOWN_MODEL, problem)
        elif taken := conflicts.get(name):
            message = "; ".join(conflict_message(*each) for each in taken.items())
            found[name] = Refusal(Reason.NAME_TAKEN, f"{message}; take it out of spec.aliases")
    return found


def handed_on(
    collections: Sequence[VectorCollection], refused: Mapping[str, Refusal]
) -> list[VectorCollection]:
    """Return the collections that the pool's pod is told of, without aliases that others have."""
    outcast = {n for n, r in refused.items() if r.reason is Reason.POOL_HAS_REPLICAS}
    conflicts = taken_aliases(filter(is_wanted, collections))
    return [
        without_aliases(c, conflicts.get(c.metadata.name, {}))
        for c in collections
        if is_wanted(c) and c.metadata.name not in outcast
    ]


def is_wanted(resource: VectorCollection) -> bool:
    """Whether a collection still has a say in its pool: it is there, or its data is to go first."""
    return resource.metadata.deletion_timestamp is None or resource.is_dropped


def decide_collection(observed: CollectionObserved) -> Plan:
    """Return what is to be done about one VectorCollection."""
    s = seen(observed)
    finalizer = _finalizer(s)
    if s.resource.metadata.deletion_timestamp is not None and not s.resource.is_dropped:
        return Plan(why=("it is being deleted, and its data stays",))
    if _is_gone(s):
        return Plan(applies=finalizer, why=("its data is gone",))
    if not s.is_settled and s.previous.conditions:
        return Plan(
            applies=finalizer, requeue_after=SETTLE_SECONDS, why=("waiting for its pod's report",)
        )
    status = desired_status(s)
    wait = _held_seconds(s)
    calm = _without_counts(s, status) if wait else status
    changed = calm.to_wire() != s.previous.to_wire()
    looks = [wait if calm != status else None, None if s.is_settled else SETTLE_SECONDS]
    return Plan(
        applies=finalizer,
        status=calm.to_wire() if changed else None,
        events=_events(s.previous.conditions or (), calm.conditions or ()),
        requeue_after=min((each for each in looks if each), default=None),
    )


def _finalizer(s: Seen) -> tuple[Apply, ...]:
    """Return how the finalizer comes and goes: it holds the resource until its data is gone."""
    metadata = s.resource.metadata
    has = COLLECTION_FINALIZER in metadata.finalizers
    deleting = metadata.deletion_timestamp is not None
    wanted = s.resource.spec.deletion_policy is DeletionPolicy.DELETE
    if deleting:
        wanted = has and not _is_gone(s)
    if has == wanted:
        return ()
    why = "its data goes before it does" if wanted else "nothing has to go before it"
    return (finalizers(s.resource, [COLLECTION_FINALIZER] if wanted else [], why),)


def _is_gone(s: Seen) -> bool:
    """Whether its data was to go and is gone, or was never made."""
    if not s.resource.is_dropped:
        return False
    if s.placed is None and not s.previous.physical_collection:
        return True
    return s.entry is not None and s.entry.state is CollectionState.DROPPED


def _held_seconds(s: Seen) -> float:
    """Return for how long yet the counts are shown as they were when status was last written."""
    written = s.observed.written
    return held_seconds(s.observed.now, [] if written is None else [written])


def _without_counts(s: Seen, status: VectorCollectionStatus) -> VectorCollectionStatus:
    """Return a status with the counts of before, unless there were none."""
    if s.previous.points is None:
        return status
    return status.model_copy(update={name: getattr(s.previous, name) for name in COUNTS})


def desired_status(s: Seen) -> VectorCollectionStatus:
    """Return the whole status that is so."""
    resource, before, entry = s.resource, s.previous, s.entry
    metadata, spec = resource.metadata, resource.spec
    generation = resource.metadata.generation
    found = [condition(kind, finding(chain, s), generation) for kind, chain in CHAINS]
    current = conditions.merged(before.conditions or (), found, now=rfc3339(s.observed.now))
    known = entry if entry is not None and entry.physical is not None else None
    model = before.model
    if known is not None and known.model is not None and known.dimensions is not None:
        model = EmbeddedBy(
            name=known.model, revision=known.model_revision, dimensions=known.dimensions
        )
    counts = {name: getattr(known, name, None) for name in COUNTS}
    return VectorCollectionStatus(
        observed_generation=generation,
        conditions=list(current),
        url=collection_url(metadata.namespace, spec.pool, metadata.name),
        aliases=(list(entry.aliases) or None) if entry is not None else before.aliases,
        profile=resource.effective_profile.value,
        store=resource.effective_store.value,
        model=model,
        physical_collection=known.physical if known else before.physical_collection,
        epoch=known.epoch if known else before.epoch,
        **{
            name: getattr(before, name) if count is None else count
            for name, count in counts.items()
        },
    )


# --- Accepted ---------------------------------------------------------------------------------


def refused(s: Seen) -> Finding | None:
    """The pool cannot hold it, or has no model for it."""
    found = s.observed.pool.collection_refusals.get(s.resource.metadata.name)
    return Finding("False", found.reason, found.message) if found is not None else None


def pool_problem(s: Seen) -> Finding | None:
    """The pool's own reconcile met something that concerns everybody in it."""
    note = s.observed.pool.note
    if note is None or note.models:
        return None
    status: Status = "True" if note.reason is Reason.PROFILE_MISSING else "False"
    return Finding(status, note.reason, note.message)


ACCEPTED: Final[tuple[Policy, ...]] = (unknown_pool, refused, pool_problem, accepted)


def not_accepted(s: Seen) -> Finding | None:
    """What is refused is not ready either, for the same reason."""
    said = finding(ACCEPTED, s)
    return said if said.status == "False" else None


# --- Ready ------------------------------------------------------------------------------------


def deleting(s: Seen) -> Finding | None:
    """Its data is being deleted."""
    if not s.resource.is_dropped:
        return None
    why = (s.entry.message if s.entry is not None else "") or "waiting for its pod"
    return Finding("False", Reason.DELETING, f"deletionPolicy is Delete: {why}")


def pod_away(s: Seen) -> Finding | None:
    """Its pod is not up."""
    if s.is_up:
        return None
    pod = s.pod
    if pod is None:
        return Finding("Unknown", Reason.WAITING_FOR_PODS, "its pod does not exist yet")
    why = f"{pod.trouble}: {pod.trouble_message}" if pod.trouble else "it is not ready yet"
    return Finding("Unknown", Reason.WAITING_FOR_PODS, f"pod {pod.name}: {why.rstrip(': ')}")


def silent(s: Seen) -> Finding | None:
    """Its pod is up and has not reported for a while: what was so before is believed."""
    view = s.view
    if view is None or not view.is_settled or view.fresh is not None:
        return None
    before = conditions.find(s.previous.conditions or (), ConditionType.READY)
    status: Status = before.status if before is not None else "Unknown"
    return Finding(status, Reason.REPORTS_MISSING, f"pod {view.pod} has not reported for a while")


def pending(s: Seen) -> Finding | None:
    """Its pod has not said anything of this spec yet."""
    if s.is_current:
        return None
    before = conditions.find(s.previous.conditions or (), ConditionType.READY)
    message = "its pod has not seen this version of the spec yet"
    if before is not None and before.status == "True" and s.entry is not None:
        return Finding("True", Reason.SERVING, before.message)
    return Finding("Unknown", Reason.PENDING, message)


def failed(s: Seen) -> Finding | None:
    """It cannot be opened, or its store went away."""
    entry = s.entry
    if entry is None or entry.state is not CollectionState.FAILED:
        return None
    return Finding("False", Reason.STORE_UNAVAILABLE, entry.message)


def opening(s: Seen) -> Finding | None:
    """It is being opened, or waits for its model."""
    entry = s.entry
    if entry is None or entry.state is CollectionState.READY:
        return None
    return Finding("Unknown", Reason.OPENING, entry.message)


def serving(s: Seen) -> Finding:
    """It answers."""
    return Finding("True", Reason.SERVING, f"answers on {pod_name(s.resource.spec.pool, 0)}")


# --- InSync and Indexed -----------------------------------------------------------------------


def unheard(s: Seen) -> Finding | None:
    """Nobody says, so what was known stays so."""
    if s.is_current and s.entry is not None and s.entry.physical is not None:
        return None
    return Finding("Unknown", Reason.PENDING, "the collection is not open yet")


def needs_reindex(s: Seen) -> Finding | None:
    """The spec wants what only a reindex brings about."""
    entry = s.entry
    if entry is None or not entry.differences:
        return None
    metadata = s.resource.metadata
    message = (
        f"{'; '.join(entry.differences)}; it serves what it has until it is reindexed; apply "
        f"{proposed_job(metadata.name, metadata.generation)}"
    )
    return Finding("False", Reason.NEEDS_REINDEX, message)


def being_reindexed(s: Seen) -> Finding | None:
    """A job brings it to its spec, or waits to."""
    job = next((j for j in s.jobs if not j.phase.is_over), None)
    if s.entry is None or not s.entry.differences or job is None:
        return None
    message = f"ReindexJob {job.name!r} brings it to its spec; it serves what it has meanwhile"
    return Finding("False", Reason.REINDEXING, message)


def rolled_back(s: Seen) -> Finding | None:
    """A job brought it to its spec, and somebody went back."""
    if s.entry is None or not s.entry.differences:
        return None
    before = conditions.find(s.previous.conditions or (), ConditionType.IN_SYNC)
    if not s.is_undone and (
        before is None
        or before.reason != Reason.ROLLED_BACK
        or before.observed_generation != s.resource.metadata.generation
    ):
        return None
    message = (
        "its reindex was rolled back: it serves what it served before; change the spec back, or "
        "apply another ReindexJob"
    )
    return Finding("False", Reason.ROLLED_BACK, message)


def alias_taken(s: Seen) -> Finding | None:
    """Its store has one of its aliases for somebody else."""
    if s.entry is None or not s.entry.alias_problem:
        return None
    return Finding("False", Reason.NAME_TAKEN, s.entry.alias_problem)


def in_sync(s: Seen) -> Finding:  # noqa: ARG001 - a policy
    """It is as the spec wants it."""
    return Finding("True", Reason.IN_SYNC, "it is built as the spec wants it")


def indexing(s: Seen) -> Finding | None:
    """The store is building."""
    if s.entry is None or s.entry.is_indexed:
        return None
    if s.entry.is_indexed is None:
        return Finding("Unknown", Reason.PENDING, "the store was not asked yet")
    message = "the store is building the index; searches are complete, and slower meanwhile"
    return Finding("False", Reason.INDEXING, message)


def indexed(s: Seen) -> Finding:  # noqa: ARG001 - a policy
    """There is nothing left to build."""
    return Finding("True", Reason.INDEXED, "the store has nothing left to build")


CHAINS: Final[tuple[tuple[ConditionType, tuple[Policy, ...]], ...]] = (
    (
        ConditionType.READY,
        (deleting, not_accepted, pod_away, silent, pending, failed, opening, serving),
    ),
    (ConditionType.ACCEPTED, ACCEPTED),
    (
        ConditionType.IN_SYNC,
        (unheard, being_reindexed, rolled_back, needs_reindex, alias_taken, in_sync),
    ),
    (ConditionType.INDEXED, (unheard, indexing, indexed)),
)

_TOLD: Final = frozenset(
    {
        Reason.SERVING,
        Reason.NEEDS_REINDEX,
        Reason.ROLLED_BACK,
        Reason.STORE_UNAVAILABLE,
        Reason.POOL_HAS_REPLICAS,
        Reason.UNKNOWN_MODEL,
        Reason.UNKNOWN_POOL,
        Reason.REPORTS_MISSING,
        Reason.DELETING,
        Reason.NAME_TAKEN,
        Reason.IN_SYNC,
    }
)
"""Reasons that are worth an Event when a condition comes to them."""


def _events(before: Iterable[Condition], after: Iterable[Condition]) -> tuple[EventNote, ...]:
    """Return one Event for each thing that has become so."""
    notes: dict[str, EventNote] = {}
    for _, new in conditions.changed(before, after):
        if new.reason in _TOLD:
            warning = new.status == "False" and new.reason != Reason.DELETING
            notes.setdefault(new.reason, EventNote(new.reason, new.message, warning))
    return tuple(notes.values())
