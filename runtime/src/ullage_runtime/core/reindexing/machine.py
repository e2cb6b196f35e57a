"""A reindex job's life: from what is so to the one thing to do next.

Whoever owns the collection keeps a `Record`, observes `Facts` afresh, asks `next_step`, and does
what it says: enter a phase (which is on the disk before anything else happens), do something that
does no harm when it is done twice, or wait. Nothing else is remembered, so a process that died
anywhere goes on by observing again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_runtime.core.reindexing.planning import Outlook, Planned, Refused

VERIFIED_SECONDS: Final = 3600.0
"""How long a verification says something about what is there."""


class Action(StrEnum):
    """What the owner of a collection does for a job; each is harmless when it was done already."""

    PREPARE = "Prepare"
    """Make the target; in place: remember how the index is built now."""
    DUAL_WRITE = "DualWrite"
    """Have what is written go to the target too."""
    COPY = "Copy"
    """Have a worker copy what the target lacks; in place: have documents be cut again."""
    BUILD = "Build"
    """Have the store build the index, in place: as wanted."""
    VERIFY = "Verify"
    """Have a worker hold the target against the source, in place: against the spec."""
    SWITCH = "Switch"
    """Commit that the target is read, with the model that its vectors are of."""
    SWITCH_BACK = "SwitchBack"
    """Commit that the source is read again; in place: have its index built as it was."""
    POINT_ALIAS = "PointAlias"
    """Have outsiders find what is read."""
    STOP_WRITING = "StopWriting"
    """Have what is written go only where it is read."""
    REMOVE = "Remove"
    """Remove what the job made or replaced and nobody reads or writes."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a job's spec asks for now."""

    suspend: bool = False
    cancel: bool = False
    deleted: bool = False
    """Whether the job itself is to go: given up before the switch, finished after it."""
    needs_approval: bool = False
    approved: bool = False
    rollback: bool = False
    rollback_seconds: float = 0.0
    """How long the old collection is kept up to date after the switch."""
    deadline: float | None = None
    """Moment by which searches must have switched."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification came to."""

    at: float
    failures: tuple[str, ...] = ()
    """Why the target must not be searched, with numbers and names; none when all is well."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so, observed afresh."""

    outlook: Outlook | None = None
    """The way there, while the job has not begun."""
    is_turn: bool = False
    """Whether no other job goes first."""
    queued_behind: str = ""
    """Which job goes first."""
    is_prepared: bool = False
    writes_target: bool = False
    """Whether the routing row names the target among what is written."""
    writes_source: bool = True
    writers_know: bool = False
    """Whether every live writer has that routing row."""
    is_copied: bool = False
    is_caught_up: bool = False
    """Whether the target has all that was accepted when copying ended."""
    is_built: bool = False
    """Whether the store has nothing left to build, and in place: whether it is as wanted."""
    is_restored: bool = True
    """In place: whether the index is as it was before the job."""
    verified: Verified | None = None
    reads_target: bool = False
    """Whether the routing row says that searches read the target."""
    is_alias_right: bool = True
    is_clean: bool = True
    """Whether nothing is left that nobody reads or writes."""
    failure: tuple[Reason, str] | None = None
    """Why the job cannot be done, whoever tries again."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of a job; on the disk before it is acted upon."""

    phase: Phase = Phase.PENDING
    since: float = 0.0
    """When the phase was entered, in seconds since the epoch."""
    plan: ReindexPlan | None = None
    plan_reason: str = ""
    resumes: Phase | None = None
    """The phase that a paused job goes on with."""
    reason: Reason | None = None
    message: str = ""
    """Why it is given up, went back or is over."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Keep this record; then observe again."""

    record: Record


@dataclass(frozen=True, slots=True)
class Do:
    """Do something or see to it that it is being done; then observe again."""

    action: Action


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before a moment, or before something changes."""

    reason: Reason
    message: str = ""
    until: float | None = None


Step = Enter | Do | Wait

_BEGUN: Final = (Phase.PREPARING, Phase.DUAL_WRITING, Phase.COPYING, Phase.CATCHING_UP)
_UNSWITCHED: Final = (*_BEGUN, Phase.INDEXING, Phase.VERIFYING, Phase.READY_TO_SWITCH)
"""Phases in which a job has begun and can still be paused or given up without a trace."""
_GIVEN_UP: Final = frozenset({Phase.CANCELLING, Phase.ROLLING_BACK})

TRANSITIONS: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.PENDING: frozenset({Phase.QUEUED, Phase.SUCCEEDED, Phase.CANCELLED, Phase.FAILED}),
    Phase.QUEUED: frozenset(
        {Phase.PREPARING, Phase.PAUSED, Phase.SUCCEEDED, Phase.CANCELLED, Phase.FAILED}
    ),
    Phase.PREPARING: frozenset(
        {Phase.DUAL_WRITING, Phase.COPYING, Phase.INDEXING, Phase.PAUSED, *_GIVEN_UP}
    ),
    Phase.DUAL_WRITING: frozenset({Phase.COPYING, Phase.PAUSED, Phase.CANCELLING}),
    Phase.COPYING: frozenset({Phase.CATCHING_UP, Phase.PAUSED}) | _GIVEN_UP,
    Phase.CATCHING_UP: frozenset({Phase.INDEXING, Phase.PAUSED}) | _GIVEN_UP,
    Phase.INDEXING: frozenset({Phase.VERIFYING, Phase.PAUSED}) | _GIVEN_UP,
    Phase.VERIFYING: frozenset({Phase.READY_TO_SWITCH, Phase.SUCCEEDED, Phase.PAUSED}) | _GIVEN_UP,
    Phase.READY_TO_SWITCH: frozenset(
        {Phase.SWITCHING, Phase.VERIFYING, Phase.PAUSED, Phase.CANCELLING}
    ),
    Phase.SWITCHING: frozenset({Phase.SOAKING, Phase.CANCELLING}),
    Phase.SOAKING: frozenset({Phase.CLEANING, Phase.ROLLING_BACK}),
    Phase.CLEANING: frozenset({Phase.SUCCEEDED}),
    Phase.PAUSED: frozenset({Phase.QUEUED, Phase.CANCELLED, Phase.FAILED, *_UNSWITCHED})
    | _GIVEN_UP,
    Phase.ROLLING_BACK: frozenset({Phase.CANCELLED, Phase.FAILED}),
    Phase.CANCELLING: frozenset({Phase.CANCELLED, Phase.FAILED}),
    Phase.SUCCEEDED: frozenset(),
    Phase.CANCELLED: frozenset(),
    Phase.FAILED: frozenset(),
}
"""Which phases may follow each; `docs/reindex-states.md` is drawn from it."""


def next_step(record: Record, wishes: Wishes, facts: Facts, now: float) -> Step:
    """Return what to do now for a job."""
    return _STEPS[record.phase](_Case(record, wishes, facts, now))


@dataclass(frozen=True, slots=True)
class _Case:
    """A job in its situation."""

    record: Record
    wishes: Wishes
    facts: Facts
    now: float

    def enter(self, phase: Phase, reason: Reason | None = None, message: str = "") -> Enter:
        """Return the step into a phase; what is given up keeps why."""
        record = replace(self.record, phase=phase, since=self.now, resumes=None)
        if reason is not None:
            record = replace(record, reason=reason, message=message)
        return Enter(record)

    def begin(self, phase: Phase, planned: Planned) -> Enter:
        """Return the step into a phase with a plan."""
        step = self.enter(phase)
        return Enter(replace(step.record, plan=planned.plan, plan_reason=planned.reason))

    def pause(self) -> Enter:
        """Return the step into a pause that ends where it began."""
        record = replace(self.record, phase=Phase.PAUSED, since=self.now)
        return Enter(replace(record, resumes=self.record.phase))

    @property
    def is_in_place(self) -> bool:
        """Whether there is one collection only."""
        return self.record.plan is not None and not self.record.plan.copies

    @property
    def wishes_to_end(self) -> tuple[Reason, str] | None:
        """Why a job that has not switched is to be given up; None while it is not."""
        if self.wishes.deleted:
            return Reason.CANCELLED, "the job was deleted"
        if self.wishes.cancel:
            return Reason.CANCELLED, "spec.cancel is true"
        if self.wishes.deadline is not None and self.now >= self.wishes.deadline:
            return Reason.DEADLINE_EXCEEDED, "spec.deadlineSeconds have passed before the switch"
        return None


def _pending(case: _Case) -> Step:
    end = _end_of_idle(case)
    if end is not None:
        return end
    match case.facts.outlook:
        case Planned() as planned if planned.plan is ReindexPlan.ALREADY_CURRENT:
            return _already_current(case, planned)
        case Planned() as planned:
            return case.begin(Phase.QUEUED, planned)
        case outlook:
            return _unplanned(case, outlook)


def _queued(case: _Case) -> Step:
    end = _end_of_idle(case)
    if end is not None:
        return end
    if case.wishes.suspend:
        return case.pause()
    if not case.facts.is_turn:
        return Wait(Reason.TARGET_BUSY, f"waits for {case.facts.queued_behind}")
    # What goes first may have changed what there is to do.
    match case.facts.outlook:
        case Planned() as planned if planned.plan is ReindexPlan.ALREADY_CURRENT:
            return _already_current(case, planned)
        case Planned() as planned:
            return case.begin(Phase.PREPARING, planned)
        case outlook:
            return _unplanned(case, outlook)


def _already_current(case: _Case, planned: Planned) -> Step:
    record = case.begin(Phase.SUCCEEDED, planned).record
    return Enter(replace(record, reason=Reason.ALREADY_CURRENT, message=planned.reason))


def _unplanned(case: _Case, outlook: Outlook | None) -> Step:
    match outlook:
        case Refused() as refused if refused.is_final:
            return case.enter(Phase.FAILED, refused.reason, refused.message)
        case Refused() as refused:
            return Wait(refused.reason, refused.message, case.wishes.deadline)
        case _:
            return Wait(Reason.PENDING, "it is being looked at", case.wishes.deadline)


def _end_of_idle(case: _Case) -> Step | None:
    """Return the end of a job that has touched nothing, if it is wished."""
    match case.wishes_to_end:
        case None:
            return None
        case Reason.DEADLINE_EXCEEDED, message:
            return case.enter(Phase.FAILED, Reason.DEADLINE_EXCEEDED, message)
        case reason, message:
            return case.enter(Phase.CANCELLED, reason, message)


def _given_up(case: _Case, reason: Reason, message: str) -> Step:
    """Return the step into giving up a job that has begun and not switched."""
    phase = Phase.ROLLING_BACK if case.is_in_place else Phase.CANCELLING
    return case.enter(phase, reason, message)


def _interrupted(step: Callable[[_Case], Step]) -> Callable[[_Case], Step]:
    """Return a step of a phase that a failure ends, a wish ends, and a wish pauses."""

    def interruptible(case: _Case) -> Step:
        end = case.facts.failure or case.wishes_to_end
        if end is not None:
            return _given_up(case, *end)
        return case.pause() if case.wishes.suspend else step(case)

    return interruptible


@_interrupted
def _preparing(case: _Case) -> Step:
    if not case.facts.is_prepared:
        return Do(Action.PREPARE)
    match case.record.plan:
        case ReindexPlan.IN_PLACE:
            return case.enter(Phase.INDEXING)
        case ReindexPlan.RECHUNK:
            return case.enter(Phase.COPYING)
        case _:
            return case.enter(Phase.DUAL_WRITING)


@_interrupted
def _dual_writing(case: _Case) -> Step:
    if not case.facts.writes_target:
        return Do(Action.DUAL_WRITE)
    if not case.facts.writers_know:
        return Wait(Reason.REINDEXING, "waits until every writer writes to the target too")
    return case.enter(Phase.COPYING)


@_interrupted
def _copying(case: _Case) -> Step:
    return case.enter(Phase.CATCHING_UP) if case.facts.is_copied else Do(Action.COPY)


@_interrupted
def _catching_up(case: _Case) -> Step:
    if not case.facts.is_caught_up:
        return Wait(Reason.REINDEXING, "waits until the target has what was written meanwhile")
    return case.enter(Phase.INDEXING)


@_interrupted
def _indexing(case: _Case) -> Step:
    return case.enter(Phase.VERIFYING) if case.facts.is_built else Do(Action.BUILD)


@_interrupted
def _verifying(case: _Case) -> Step:
    verified = case.facts.verified
    if verified is None or verified.at < case.record.since:
        return Do(Action.VERIFY)
    if verified.failures:
        return _given_up(case, Reason.VERIFICATION_FAILED, "; ".join(verified.failures))
    return case.enter(Phase.SUCCEEDED if case.is_in_place else Phase.READY_TO_SWITCH)


@_interrupted
def _ready_to_switch(case: _Case) -> Step:
    verified = case.facts.verified
    if verified is None or case.now - verified.at >= VERIFIED_SECONDS:
        return case.enter(Phase.VERIFYING)
    if case.wishes.needs_approval and not case.wishes.approved:
        message = "the target is verified; set spec.approve to switch"
        return Wait(Reason.WAITING_FOR_APPROVAL, message, verified.at + VERIFIED_SECONDS)
    return case.enter(Phase.SWITCHING)


def _switching(case: _Case) -> Step:
    # What the routing row says is so, whatever was wished while it was being written.
    if case.facts.reads_target:
        return case.enter(Phase.SOAKING)
    end = case.wishes_to_end
    return Do(Action.SWITCH) if end is None else _given_up(case, *end)


def _soaking(case: _Case) -> Step:
    if case.wishes.rollback or case.wishes.cancel:
        field = "rollback" if case.wishes.rollback else "cancel"
        return case.enter(Phase.ROLLING_BACK, Reason.ROLLED_BACK, f"spec.{field} is true")
    if not case.facts.is_alias_right:
        return Do(Action.POINT_ALIAS)
    if case.wishes.deleted:
        return case.enter(Phase.CLEANING)
    if case.wishes.suspend:
        return Wait(Reason.SUSPENDED, "the old collection is kept until the job is resumed")
    over = case.record.since + case.wishes.rollback_seconds
    if case.now < over:
        return Wait(Reason.SOAKING, "spec.rollback brings the old collection back at once", over)
    return case.enter(Phase.CLEANING)


def _cleaning(case: _Case) -> Step:
    if case.facts.writes_source:
        return Do(Action.STOP_WRITING)
    return case.enter(Phase.SUCCEEDED) if case.facts.is_clean else Do(Action.REMOVE)


def _undone(case: _Case) -> Step:
    """Return what is left to do until all is as it was before the job."""
    facts = case.facts
    if facts.reads_target or not facts.is_restored:
        return Do(Action.SWITCH_BACK)
    if not facts.is_alias_right:
        return Do(Action.POINT_ALIAS)
    if facts.writes_target and not case.is_in_place:
        return Do(Action.STOP_WRITING)
    if not facts.is_clean:
        return Do(Action.REMOVE)
    wished = case.record.reason in {Reason.CANCELLED, Reason.ROLLED_BACK}
    return case.enter(Phase.CANCELLED if wished else Phase.FAILED)


def _paused(case: _Case) -> Step:
    resumes = case.record.resumes or Phase.QUEUED
    if resumes is Phase.QUEUED:
        end = _end_of_idle(case)
    else:
        wished = case.wishes_to_end
        end = None if wished is None else _given_up(case, *wished)
    if end is not None:
        return end
    if not case.wishes.suspend:
        return case.enter(resumes)
    return Wait(Reason.SUSPENDED, "spec.suspend is true", case.wishes.deadline)


def _over(case: _Case) -> Step:
    return Wait(case.record.reason or Reason.SUCCEEDED, case.record.message)


_STEPS: Final[Mapping[Phase, Callable[[_Case], Step]]] = {
    Phase.PENDING: _pending,
    Phase.QUEUED: _queued,
    Phase.PREPARING: _preparing,
    Phase.DUAL_WRITING: _dual_writing,
    Phase.COPYING: _copying,
    Phase.CATCHING_UP: _catching_up,
    Phase.INDEXING: _indexing,
    Phase.VERIFYING: _verifying,
    Phase.READY_TO_SWITCH: _ready_to_switch,
    Phase.SWITCHING: _switching,
    Phase.SOAKING: _soaking,
    Phase.CLEANING: _cleaning,
    Phase.PAUSED: _paused,
    Phase.ROLLING_BACK: _undone,
    Phase.CANCELLING: _undone,
    Phase.SUCCEEDED: _over,
    Phase.CANCELLED: _over,
    Phase.FAILED: _over,
}
