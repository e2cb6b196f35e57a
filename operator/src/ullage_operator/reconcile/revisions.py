"""A model's revisions: which are named, what became of each, and how that is kept.

A revision is named once a pod knows the digest of its file. What is kept of it is a
ControllerRevision of the ModelDeployment, as StatefulSets do it; its data never changes, and what
became of it is in annotations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ullage_api.kinds.revision import HISTORY, Outcome, RevisionStatus
from ullage_api.kinds.rollout import Transition
from ullage_api.names import revision_name
from ullage_api.wire.pod_report import ReportedModel, ReportedRevision
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_operator.reconcile import history
from ullage_operator.reconcile.manifests.common import Manifest
from ullage_operator.reconcile.manifests.revisions import controller_revision
from ullage_operator.reconcile.observed import RevisionRecord
from ullage_operator.reconcile.plan import Apply, Delete, Verb
from ullage_operator.reconcile.pool import apply_of
from ullage_operator.reconcile.quantities import rfc3339
from ullage_operator.reconcile.snapshot import Snapshot

MESSAGE_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a revision, as the pods tell it now."""

    outcome: Outcome
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The revisions as they are to be kept, the newest first, and what has to be written for it."""

    records: tuple[RevisionRecord, ...]
    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    is_waiting: bool = False
    """Whether an object has yet to go before all can be written."""


def kept(s: Snapshot) -> Kept:
    """Return what is to be kept of a model's revisions."""
    resource, seen = s.observed.resource, s.observed.revisions
    mine = history.of(resource, (r for r in seen if not _is_leaving(r)))
    known = {r.name: r for r in mine}
    for entry in s.current:
        _note(s, entry, known)
    for name, record in known.items():
        known[name] = _with_hold(s, record)
    ordered = tuple(sorted(known.values(), key=lambda r: (-r.number, r.name)))
    records = _bounded(s, ordered)
    names = {r.name for r in records}
    gone = tuple(
        Delete(r.child.api_version, r.child.kind, r.child.name, r.child.uid, "it is old")
        for r in seen
        if r.child is not None and not r.child.deleting and (r not in mine or r.name not in names)
    )
    writes = (_write(controller_revision(resource, r), r) for r in records)
    leaving = {r.name for r in seen if _is_leaving(r)}
    return Kept(
        records,
        tuple(w for w in writes if w is not None) if not leaving & names else (),
        gone,
        is_waiting=bool(leaving & names),
    )


def _write(manifest: Manifest, record: RevisionRecord) -> Apply | None:
    """Return how a record is written; never by POST.

    The API server compares `data`, which may not change, byte by byte, and server-side apply
    spells it in its own way: so it must have been spelt so from the first. What somebody else has
    under the name is safe, as its data would have to change.
    """
    if record.child is None:
        return Apply(Verb.UPSERT, manifest, "it was named")
    return apply_of(manifest, record.child)


def shown(records: Iterable[RevisionRecord]) -> list[RevisionStatus] | None:
    """Return the revisions as status shows them."""
    found = [
        RevisionStatus(
            name=r.name,
            uri=r.spec.uri,
            sha256=r.spec.sha256,
            outcome=r.outcome,
            reason=r.reason or None,
            time=r.time,
        )
        for r in records
    ]
    return found[:HISTORY] or None


def pinned(want: DesiredRevision, reported: ReportedRevision) -> DesiredRevision | None:
    """Return a wish with the digests that a pod has found, or None if the pod means another."""
    digests = {a.name: a.sha256 for a in reported.adapters}
    if (
        reported.sha256 is None
        or reported.uri != want.uri
        or any(a.name not in digests for a in want.adapters)
    ):
        return None
    adapters = tuple(a.model_copy(update={"sha256": digests[a.name]}) for a in want.adapters)
    identities = [{"name": a.name, "sha256": a.sha256, "scale": a.scale} for a in adapters]
    if revision_name(reported.sha256, want.settings, identities) != reported.revision:
        return None
    return want.model_copy(update={"sha256": reported.sha256, "adapters": adapters})


def _note(s: Snapshot, entry: ReportedModel, known: dict[str, RevisionRecord]) -> None:
    """Add what a pod says of its target to what is known."""
    target = entry.target
    if target is None or target.revision is None:
        return
    name, now = target.revision, rfc3339(s.observed.now)
    newest = max((r.number for r in known.values()), default=0)
    if name not in known:
        spec = pinned(s.placed.target, target) if s.placed is not None else None
        if spec is None:
            return
        model = s.observed.resource.metadata.name
        known[name] = RevisionRecord(name, spec, newest + 1, now, model=model)
    found, record = _finding(s.current, name), known[name]
    if found is None or _says(record, found, s.generation):
        return
    number = record.number
    if found.outcome is Outcome.GOOD:
        # What was found good last is what to fall back to, however often it was tried before.
        number = max(r.number for r in known.values())
        number += number != record.number
    known[name] = replace(
        record,
        number=number,
        time=now,
        outcome=found.outcome,
        reason=found.reason,
        message=found.message[:MESSAGE_LIMIT],
        generation=s.generation,
    )


def _finding(entries: Sequence[ReportedModel], name: str) -> Finding | None:
    """Return what the pods say became of their target; one that it serves well on speaks last."""
    about = [e for e in entries if e.target is not None and e.target.revision == name]
    for entry in about:
        serves = entry.active is not None and entry.active.revision == name
        if serves and entry.transition in {None, Transition.UP_TO_DATE}:
            return Finding(Outcome.GOOD)
    for entry in about:
        gave_up = entry.transition is Transition.ROLLED_BACK
        if gave_up or (entry.final and entry.transition is not Transition.UP_TO_DATE):
            return Finding(Outcome.FAILED, entry.reason.value, entry.message)
    return None


def _says(record: RevisionRecord, found: Finding, generation: int) -> bool:
    """Whether a record already says it; words may differ from pod to pod."""
    if record.outcome is not found.outcome:
        return False
    if found.outcome is Outcome.GOOD:
        return True
    return (record.reason, record.generation) == (found.reason, generation)


def _with_hold(s: Snapshot, record: RevisionRecord) -> RevisionRecord:
    """Return the record with the generation at which somebody asked to go back to it."""
    if record.name != history.asked_back(s.observed.resource):
        return replace(record, held_generation=None)
    return replace(record, held_generation=record.held_generation or s.generation)


def _bounded(s: Snapshot, records: Sequence[RevisionRecord]) -> tuple[RevisionRecord, ...]:
    """Return the newest, and of the others those in use."""
    said = (r.revision for e in s.reported for r in (e.active, e.target) if r is not None)
    good = history.last_good(records)
    needed = {*said, history.asked_back(s.observed.resource), good.name if good else None}
    room = HISTORY - sum(r.name in needed for r in records)
    others = [r.name for r in records if r.name not in needed]
    stay = needed | set(others[: max(0, room)])
    return tuple(r for r in records if r.name in stay)


def _is_leaving(record: RevisionRecord) -> bool:
    return record.child is not None and record.child.deleting
