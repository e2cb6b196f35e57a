"""A collection and everything around it, as its plan sees it."""

from dataclasses import dataclass

from ullage_api.conditions import Reason
from ullage_api.kinds.collection_status import VectorCollectionStatus
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import pod_name
from ullage_api.wire.pod_report import ReportedCollection, ReportedReindex
from ullage_api.wire.pool_desired import DesiredCollection
from ullage_operator.reconcile.observed import CollectionObserved, OnOnePod


@dataclass(frozen=True, slots=True)
class Seen(OnOnePod):
    """One collection and everything around it that its conditions speak of."""

    observed: CollectionObserved
    placed: DesiredCollection | None
    """What the pool's document asks for of it."""
    entry: ReportedCollection | None
    """What its pod says of this very VectorCollection, if it was heard of late."""

    @property
    def resource(self) -> VectorCollection:
        """The resource."""
        return self.observed.resource

    @property
    def previous(self) -> VectorCollectionStatus:
        """The status as it stands."""
        return self.resource.status or VectorCollectionStatus()

    @property
    def is_current(self) -> bool:
        """Whether what the pod says is of the spec as it is now."""
        entry = self.entry
        return entry is not None and entry.generation == self.resource.metadata.generation

    @property
    def jobs(self) -> tuple[ReportedReindex, ...]:
        """What its pod says of the jobs that reindex it, or have."""
        report = self.view.fresh if self.view is not None else None
        name = self.resource.metadata.name
        return tuple(j for j in report.reindexes if j.collection == name) if report else ()

    @property
    def is_undone(self) -> bool:
        """Whether a job brought it to its spec as it is now, and somebody went back."""
        metadata = self.resource.metadata
        return (metadata.name, metadata.generation) in self.observed.pool.rolled_back or any(
            job.phase.is_over
            and job.reason is Reason.ROLLED_BACK
            and job.target is not None
            and job.target.generation == metadata.generation
            for job in self.jobs
        )


def seen(observed: CollectionObserved) -> Seen:
    """Return a collection as its policies see it."""
    metadata, pool = observed.resource.metadata, observed.pool
    desired = pool.desired.collections if pool.desired is not None else ()
    placed = next((c for c in desired if c.name == metadata.name), None)
    name = pod_name(observed.resource.spec.pool, 0)
    pod = next((p for p in pool.pods if p.name == name), None)
    view = next((v for v in observed.reports if v.pod == name), None)
    report = view.fresh if view is not None else None
    entry = report.collection(metadata.name) if report is not None else None
    return Seen(
        observed=observed,
        placed=placed if placed is not None and placed.uid == metadata.uid else None,
        pod=pod,
        view=view,
        entry=entry if entry is not None and entry.uid == metadata.uid else None,
    )
