"""Where a model stands between what answers and what is asked for."""

from typing import Final

from ullage_api.kinds.model_status import ModelDeploymentStatus
from ullage_api.kinds.rollout import Transition
from ullage_operator.reconcile.observed import RevisionRecord
from ullage_operator.reconcile.plan import EventNote
from ullage_operator.reconcile.snapshot import Snapshot

_WARNED_OF: Final = frozenset({Transition.BLOCKED_BY_FAILED_LOAD})


def transition(s: Snapshot) -> Transition | None:
    """Return where the model stands, over all pods that it is placed on."""
    if s.is_suspended or not s.holders:
        return None
    if not s.current:
        same = s.previous.observed_generation == s.generation
        return (s.previous.transition if same else None) or Transition.IN_PROGRESS
    back = s.held
    if back is not None:
        return Transition.ROLLED_BACK if is_back(s, back) else Transition.IN_PROGRESS
    return _of_pods(s)


def _of_pods(s: Snapshot) -> Transition:
    if any(e.transition is Transition.ROLLED_BACK for e in s.current):
        return Transition.ROLLED_BACK
    if any(e.final or e.transition is Transition.BLOCKED_BY_FAILED_LOAD for e in s.current):
        return Transition.BLOCKED_BY_FAILED_LOAD
    if len(s.up_to_date) == len(s.holders):
        return Transition.UP_TO_DATE
    return Transition.IN_PROGRESS


def is_back(s: Snapshot, back: RevisionRecord) -> bool:
    """Whether every pod answers with the revision that is held."""
    if s.placed is None or s.placed.target != back.spec:
        return False
    names = (
        (h.entry.active or h.entry.target) if h.entry is not None else None for h in s.answering
    )
    answering = [r is not None and r.revision == back.name for r in names]
    return len(answering) == len(s.holders) and all(answering)


def transition_event(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus, said: frozenset[str]
) -> tuple[EventNote, ...]:
    """Return the Event of a transition, unless a condition's Event says so already."""
    now = after.transition
    if now is None or now is before.transition or now.value in said:
        return ()
    active, target = after.active_revision, after.target_revision
    if active is None or (before.transition is None and now is Transition.UP_TO_DATE):
        return ()
    note = {
        Transition.UP_TO_DATE: f"revision {active} answers",
        Transition.IN_PROGRESS: f"revision {active} answers until the next one takes over",
        Transition.BLOCKED_BY_FAILED_LOAD: (
            f"revision {target or 'asked for'} has failed; {active} goes on answering"
        ),
        Transition.ROLLED_BACK: f"revision {active} answers again",
    }[now]
    return (EventNote(now.value, note, warning=now in _WARNED_OF),)
