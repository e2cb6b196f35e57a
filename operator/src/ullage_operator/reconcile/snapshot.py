"""A model as its policies see it: the facts, put together once."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ullage_api import conditions
from ullage_api.conditions import Condition, ConditionType, Reason
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_status import ModelDeploymentStatus, Residency
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pod_report import DeviceKind, ReportedModel
from ullage_api.wire.pool_desired import DesiredModel
from ullage_operator.reconcile import history
from ullage_operator.reconcile.observed import (
    ModelObserved,
    PodView,
    ReportView,
    RevisionRecord,
)

FAILURES: Final = frozenset({Reason.LOAD_FAILED, Reason.CRASH_LOOPING})
"""Reasons for which a model does not serve although it may yet recover."""

_AWAY: Final = frozenset({Reason.IDLE, Reason.WARM})
"""Reasons of a model that has shown that it serves, left its device, and comes back when asked."""

RESTLESS_SECONDS: Final = 30.0
"""Shortest time between two writes of a status for what comes and goes with the traffic."""
SETTLE_SECONDS: Final = 1.0
"""Time after which a member whose pods have not reported yet is looked at again."""


def held_seconds(now: datetime, written: Iterable[datetime]) -> float:
    """Return for how long yet what is restless stays as it was last written."""
    last = max(written, default=None)
    return 0.0 if last is None else max(0.0, RESTLESS_SECONDS - (now - last).total_seconds())


@dataclass(frozen=True, slots=True)
class Holder:
    """One pod that the model is placed on, and what is known of the model there."""

    ordinal: int
    pod: PodView | None = None
    view: ReportView | None = None
    entry: ReportedModel | None = None
    """The model in the pod's fresh report, if it is this very ModelDeployment."""

    @property
    def name(self) -> str:
        """The pod's name, or its place while there is none."""
        return self.pod.name if self.pod is not None else str(self.ordinal)

    @property
    def has_gpu(self) -> bool:
        """Whether its fresh report tells of a GPU."""
        report = self.view.fresh if self.view is not None else None
        return report is not None and any(d.kind is DeviceKind.GPU for d in report.devices)

    @property
    def is_up(self) -> bool:
        """Whether the pod takes requests."""
        return self.pod is not None and self.pod.is_up

    @property
    def is_silent(self) -> bool:
        """Whether the pod is up, has been asked for a while, and has no report or an old one."""
        view = self.view
        return self.is_up and view is not None and view.is_settled and view.fresh is None

    @property
    def level(self) -> MemoryLevel | None:
        """How full the pod's memory is, by its fresh report."""
        report = self.view.fresh if self.view is not None else None
        return report.level if report is not None and self.is_up else None

    @property
    def is_idle(self) -> bool:
        """Whether the model has shown that it serves there, and comes back with a request."""
        return self.is_up and self.entry is not None and self.entry.reason in _AWAY

    @property
    def is_warm(self) -> bool:
        """Whether it is so and the pod's memory keeps it for a quick return."""
        return self.is_idle and self.entry is not None and self.entry.reason is Reason.WARM

    @property
    def serves(self) -> bool:
        """Whether some revision of the model answers there now."""
        return (
            self.is_up
            and self.entry is not None
            and self.entry.active is not None
            and self.entry.residency is Residency.RESIDENT
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One model and everything around it that its conditions speak of."""

    observed: ModelObserved
    holders: tuple[Holder, ...]
    """The pods it is placed on, by ordinal."""
    others: tuple[Holder, ...]
    """Pods it is not placed on (any more) that still report it."""
    placed: DesiredModel | None = None
    """What the pool's document asks for of it."""

    @property
    def generation(self) -> int:
        """The generation of the spec."""
        return self.observed.resource.metadata.generation

    @property
    def previous(self) -> ModelDeploymentStatus:
        """The status as it stands."""
        return self.observed.resource.status or ModelDeploymentStatus()

    @property
    def is_suspended(self) -> bool:
        """Whether the spec asks that nothing be served."""
        return not self.observed.resource.spec.is_serving_wanted

    @property
    def serving(self) -> tuple[Holder, ...]:
        """The pods on which it answers."""
        return tuple(h for h in self.holders if h.serves)

    @property
    def answering(self) -> tuple[Holder, ...]:
        """The pods that answer: at once, or after a load."""
        return tuple(h for h in self.holders if h.serves or h.is_idle)

    @property
    def current(self) -> tuple[ReportedModel, ...]:
        """What the pods say of the spec as it is now; older words no longer count."""
        return tuple(
            h.entry
            for h in self.holders
            if h.entry is not None and h.entry.generation == self.generation
        )

    @property
    def reported(self) -> tuple[ReportedModel, ...]:
        """What any pod says of the model, placed there or not."""
        return tuple(h.entry for h in (*self.holders, *self.others) if h.entry is not None)

    @property
    def up_to_date(self) -> tuple[Holder, ...]:
        """The pods on which what answers is what the spec asks for."""
        return tuple(h for h in self.answering if h.entry is not None and self._is_target(h.entry))

    def _is_target(self, entry: ReportedModel) -> bool:
        if entry.generation != self.generation or entry.final:
            return False
        if entry.transition is not None:
            return entry.transition is Transition.UP_TO_DATE
        if entry.active is None:
            return entry.reason in _AWAY
        return entry.target is None or entry.target.revision == entry.active.revision

    @property
    def revisions(self) -> tuple[RevisionRecord, ...]:
        """The revisions that are kept of it, the newest first."""
        return history.of(self.observed.resource, self.observed.revisions)

    @property
    def held(self) -> RevisionRecord | None:
        """The earlier revision that somebody went back to."""
        return history.held(self.observed.resource, self.revisions)

    @property
    def held_seconds(self) -> float:
        """For how long yet levels and bytes are shown as they were when status was last written.

        Another process may have written it: then status says at least when its level changed.
        """
        memory, written = self.previous.memory, self.observed.written
        since = memory.level_since if memory is not None else None
        moments = [datetime.fromisoformat(since)] if since is not None else []
        moments += [written] if written is not None else []
        return held_seconds(self.observed.now, moments)

    @property
    def has_served(self) -> bool:
        """Whether a revision has served before, as far as status remembers."""
        ready = self.before(ConditionType.READY)
        return (ready is not None and ready.status == "True") or bool(self.previous.active_revision)

    @property
    def is_settled(self) -> bool:
        """Whether every pod that is up has reported, or has had time to."""
        return all(
            h.view is not None and h.view.is_settled
            for h in (*self.holders, *self.others)
            if h.is_up
        )

    def before(self, kind: ConditionType) -> Condition | None:
        """Return a condition as it stands."""
        return conditions.find(self.previous.conditions or (), kind)


def snapshot(observed: ModelObserved) -> Snapshot:
    """Return the snapshot of one model."""
    resource = observed.resource
    name, uid = resource.metadata.name, resource.metadata.uid
    desired = observed.pool.desired
    placed = next((m for m in desired.models if m.name == name), None) if desired else None
    placed = placed if placed is not None and placed.uid == uid else None
    ordinals = placed.ordinals if placed is not None else ()
    pods = {p.ordinal: p for p in observed.pool.pods}
    views = {v.pod: v for v in observed.reports}

    def holder(ordinal: int) -> Holder:
        pod = pods.get(ordinal)
        view = views.get(pod.name) if pod is not None else None
        report = view.fresh if view is not None else None
        entry = report.model(name) if report is not None else None
        mine = entry if entry is not None and entry.uid == uid else None
        return Holder(ordinal, pod, view, mine)

    return Snapshot(
        observed=observed,
        holders=tuple(holder(o) for o in ordinals),
        others=tuple(holder(o) for o in sorted(set(pods) - set(ordinals))),
        placed=placed,
    )
