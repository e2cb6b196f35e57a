"""A reindex job and everything around it, as its plan sees it."""

from dataclasses import dataclass
from typing import Final

from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_status import ReindexJobStatus
from ullage_api.names import pod_name
from ullage_api.profile import PoolProfile
from ullage_api.wire.pod_report import ReportedReindex
from ullage_api.wire.pool_desired import DesiredReindex
from ullage_operator.reconcile.observed import OnOnePod, ReindexObserved

WORKING: Final = frozenset(
    {
        ReindexPhase.DUAL_WRITING,
        ReindexPhase.COPYING,
        ReindexPhase.CATCHING_UP,
        ReindexPhase.INDEXING,
        ReindexPhase.VERIFYING,
    }
)
"""Phases in which a worker has something to do, or soon will."""


def is_told(resource: ReindexJob) -> bool:
    """Whether a pod is told of a job: it cannot vanish unnoticed, and it is not over."""
    return resource.is_held and not resource.is_over


@dataclass(frozen=True, slots=True)
class Seen(OnOnePod):
    """One job and everything around it that its conditions speak of."""

    observed: ReindexObserved
    placed: DesiredReindex | None
    """What the pool's document asks for of it."""
    entry: ReportedReindex | None
    """What its pod says of this very ReindexJob, if it was heard of late."""

    @property
    def resource(self) -> ReindexJob:
        """The resource."""
        return self.observed.resource

    @property
    def previous(self) -> ReindexJobStatus:
        """The status as it stands."""
        return self.resource.status or ReindexJobStatus()

    @property
    def profile(self) -> PoolProfile | None:
        """The profile of the collection's pool, if there is one."""
        return self.observed.pool.profile

    @property
    def is_current(self) -> bool:
        """Whether what the pod says is of the spec as it is now."""
        entry = self.entry
        return entry is not None and entry.generation == self.resource.metadata.generation

    @property
    def is_over(self) -> bool:
        """Whether it is finished, by its status or by what its pod says."""
        return self.resource.is_over or (self.entry is not None and self.entry.phase.is_over)

    @property
    def needs_worker(self) -> bool:
        """Whether a worker has to drive it now."""
        entry = self.entry
        if entry is None or self.is_over or entry.plan in {None, ReindexPlan.ALREADY_CURRENT}:
            return False
        return entry.phase in WORKING


def seen(observed: ReindexObserved) -> Seen:
    """Return a job as its plan sees it."""
    metadata, pool = observed.resource.metadata, observed.pool
    desired = pool.desired.reindexes if pool.desired is not None else ()
    placed = next((r for r in desired if r.name == metadata.name), None)
    name = pod_name(observed.collection.spec.pool, 0) if observed.collection is not None else ""
    view = next((v for v in observed.reports if v.pod == name), None)
    report = view.fresh if view is not None else None
    entry = report.reindex(metadata.name) if report is not None else None
    return Seen(
        observed=observed,
        placed=placed if placed is not None and placed.uid == metadata.uid else None,
        pod=next((p for p in pool.pods if p.name == name), None),
        view=view,
        entry=entry if entry is not None and entry.uid == metadata.uid else None,
    )
