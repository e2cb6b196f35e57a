"""Two revisions side by side, as a model's status and Events show them.

How they do changes with every request. Status shows a new step at once, and figures within a step
as seldom as anything else that comes and goes with the traffic.
"""

from collections.abc import Sequence

from ullage_api.kinds.model_status import ArmStatus
from ullage_api.kinds.rollout import SwapStep
from ullage_api.wire.pod_report import ReportedArm, ReportedModel
from ullage_operator.reconcile.plan import EventNote
from ullage_operator.reconcile.snapshot import Snapshot

_COMPARED = frozenset({SwapStep.CANARY, SwapStep.WATCHING})


def shown(s: Snapshot) -> list[ArmStatus] | None:
    """Return what status shows of the revisions that are, or were last, compared."""
    before, entry = s.previous.arms, _entry(s)
    if entry is None:
        return before if before and _still_concerns(s, before) else None
    now = _told(entry)
    return before if _is_held(s, entry, before, now) else now


def is_held(s: Snapshot) -> bool:
    """Whether there are newer figures than those that status may show yet."""
    entry = _entry(s)
    if entry is None:
        return False
    now = _told(entry)
    return now != s.previous.arms and _is_held(s, entry, s.previous.arms, now)


def step_event(
    s: Snapshot, after: Sequence[ArmStatus] | None, said: frozenset[str]
) -> tuple[EventNote, ...]:
    """Return the Event of a step from one share of the requests to the next.

    The first one's is that of the condition; how it ended is told by the transition.
    """
    entry, before = _entry(s), s.previous.arms
    if entry is None or not after or entry.reason.value in said:
        return ()
    if not _is_compared(entry) or (before and _shares(before) == _shares(after)):
        return ()
    return (EventNote(entry.reason.value, entry.message),)


def _entry(s: Snapshot) -> ReportedModel | None:
    """Return the lowest pod's word that compares, or has compared, what is asked for now."""
    return next((entry for entry in s.current if _speaks(entry)), None)


def _speaks(entry: ReportedModel) -> bool:
    swap, target = entry.swap, entry.target
    if swap is None or len(swap.arms) != 2 or target is None:  # noqa: PLR2004 - both revisions
        return False
    return swap.target == target.revision


def _told(entry: ReportedModel) -> list[ArmStatus]:
    return [_status(arm) for arm in entry.swap.arms] if entry.swap is not None else []


def _status(arm: ReportedArm) -> ArmStatus:
    return ArmStatus(
        revision=arm.revision,
        weight=arm.weight,
        requests=arm.requests,
        errors=arm.errors,
        token_microseconds_p50=_microseconds(arm.token_milliseconds),
        token_microseconds_p95=_microseconds(arm.slow_token_milliseconds),
    )


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(1000 * milliseconds)


def _is_held(
    s: Snapshot,
    entry: ReportedModel,
    before: Sequence[ArmStatus] | None,
    now: Sequence[ArmStatus],
) -> bool:
    if not before or not s.held_seconds or _shares(before) != _shares(now):
        return False
    return _is_compared(entry)


def _is_compared(entry: ReportedModel) -> bool:
    return entry.swap is not None and entry.swap.step in _COMPARED


def _still_concerns(s: Snapshot, arms: Sequence[ArmStatus]) -> bool:
    """Whether they were compared for what the spec asks for now; a pod forgets it at its end."""
    same = s.previous.observed_generation == s.generation
    return same and any(arm.revision == s.previous.target_revision for arm in arms)


def _shares(arms: Sequence[ArmStatus]) -> list[tuple[str, int]]:
    return [(arm.revision, arm.weight) for arm in arms]
