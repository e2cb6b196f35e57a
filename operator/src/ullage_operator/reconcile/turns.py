"""Turns: over several pods a revision is rolled out one pod at a time.

The first to take it is the lowest that is up. The next one follows when what the spec asks for
answers there for good: loaded, checked, compared and watched. What fails on one pod stops there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ullage_api.kinds.revision import Outcome
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision
from ullage_operator.reconcile import history
from ullage_operator.reconcile.observed import PodView, ReportView, RevisionRecord
from ullage_operator.reconcile.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Pods:
    """What is known of a model's pods, by ordinal."""

    entries: Mapping[int, ReportedModel]
    """What each last said of the model, however long ago."""
    up: frozenset[int]
    """Those that take requests."""

    @classmethod
    def of(
        cls, name: str, uid: str, pods: Sequence[PodView], reports: Sequence[ReportView]
    ) -> "Pods":
        """Return what is known of one model's pods."""
        views = {view.pod: view.report for view in reports if view.report is not None}
        said = {p.ordinal: views[p.name].model(name) for p in pods if p.name in views}
        return cls(
            {o: entry for o, entry in said.items() if entry is not None and entry.uid == uid},
            frozenset(p.ordinal for p in pods if p.is_up),
        )


def is_over(s: Snapshot) -> bool:
    """Whether the turn of a model's next pod has come, so that the pool has to tell it."""
    placed, resource = s.placed, s.observed.resource
    if placed is None or not placed.waiting:
        return False
    pods = Pods.of(placed.name, resource.metadata.uid, s.observed.pool.pods, s.observed.reports)
    now = waiting(placed.target, placed.ordinals, before=placed, records=s.revisions, pods=pods)
    return now != placed.waiting


def waiting(
    wanted: DesiredRevision,
    ordinals: Sequence[int],
    *,
    before: DesiredModel | None,
    records: Sequence[RevisionRecord],
    pods: Pods,
) -> tuple[int, ...]:
    """Return the pods that are not to take what is wanted yet.

    `before` is what was last asked of them, `records` are the model's revisions, the newest
    first. Nobody waits where there is nothing good that could answer meanwhile. Who was once told
    to take it is not told otherwise.
    """
    if not any(record.outcome is Outcome.GOOD for record in records):
        return ()
    names = {r.name for r in records if history.is_asked_for(r.spec, wanted)}
    told = _told(wanted, ordinals, before)
    if history.is_proven(records, wanted):
        # Where the model is new, what has shown itself elsewhere takes nobody's place.
        told |= {o for o in ordinals if before is None or o not in before.ordinals}
    behind = [o for o in sorted(ordinals) if not _has(pods.entries.get(o), names)]
    late = [o for o in behind if o not in told]
    if len(late) < len(behind) or not late:
        return tuple(late)
    first = next((o for o in late if o in pods.up), late[0])
    return tuple(o for o in late if o != first)


def _told(
    wanted: DesiredRevision, ordinals: Sequence[int], before: DesiredModel | None
) -> set[int]:
    """Return the pods that were told to take what is wanted."""
    if before is None or before.target != wanted:
        return set()
    return {o for o in ordinals if o in before.ordinals and o not in before.waiting}


def _has(entry: ReportedModel | None, names: set[str]) -> bool:
    """Whether a pod has one of these revisions for good, and not to compare or watch it."""
    if entry is None:
        return False
    target = entry.target.revision if entry.target is not None else None
    has = entry.active.revision if entry.active is not None else target
    if has not in names:
        return False
    # Where it stands towards something else says nothing of what it has.
    return target != has or entry.transition in {None, Transition.UP_TO_DATE}
