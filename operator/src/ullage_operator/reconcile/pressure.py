"""Memory pressure: what a model's status says of how full its pods are, and how often.

`MemoryPressure` is True where a pod that holds the model is short of memory. It is never False
because nobody speaks: pods that say nothing make it Unknown. It says nothing of `Ready`, for a
model on a full pod answers all the same.

Levels may come and go with the traffic. What is shown of them changes at most once in
`RESTLESS_SECONDS` for each resource; status itself remembers when it last did.
"""
# ruff: noqa: D401 - a policy's docstring names the state it speaks of, as its sentence would

from dataclasses import dataclass, replace
from typing import Final

from ullage_api.conditions import Condition, ConditionType, Reason
from ullage_api.kinds.memory import MemoryLevel, worst
from ullage_operator.reconcile.findings import Finding, finding
from ullage_operator.reconcile.policies import (
    Policy,
    no_place,
    not_accepted,
    suspended,
    waiting_for_pods,
)
from ullage_operator.reconcile.quantities import readable, rfc3339
from ullage_operator.reconcile.snapshot import Holder, Snapshot

_SHORT: Final = {
    MemoryLevel.HIGH: Reason.MEMORY_HIGH,
    MemoryLevel.CRITICAL: Reason.MEMORY_CRITICAL,
}


def refused(s: Snapshot) -> Finding | None:
    """What is refused is on no pod."""
    said = not_accepted(s)
    return said and Finding("Unknown", said.reason, said.message)


def resting(s: Snapshot) -> Finding | None:
    """A suspended model takes no memory."""
    return suspended(s) and Finding("False", Reason.SUSPENDED, "it takes no memory")


def unplaced(s: Snapshot) -> Finding | None:
    """It is on no pod yet."""
    said = no_place(s)
    return said and Finding("Unknown", said.reason, said.message)


def short(s: Snapshot) -> Finding | None:
    """A pod says that it is short of memory."""
    fullest = max(s.holders, key=_rank, default=None)
    reason = _SHORT.get(fullest.level) if fullest is not None and fullest.level else None
    if fullest is None or reason is None:
        return None
    return Finding("True", reason, _words(fullest))


def unheard(s: Snapshot) -> Finding | None:
    """A pod that is up has said nothing for a while."""
    names = ", ".join(h.pod.name for h in s.holders if h.pod is not None and h.is_silent)
    if not names:
        return None
    return Finding("Unknown", Reason.REPORTS_MISSING, f"no report from {names} for a while")


def unread(s: Snapshot) -> Finding | None:
    """A pod that is up reports, but cannot say how full its memory is."""
    mute = [h.pod.name for h in s.holders if h.pod is not None and h.is_up and h.level is None]
    if not mute:
        return None
    return Finding(
        "Unknown", Reason.PENDING, f"{', '.join(mute)} cannot say how full its memory is"
    )


def available(s: Snapshot) -> Finding:
    """Every pod says that there is memory left."""
    fullest = max(s.holders, key=_rank)
    return Finding("False", Reason.MEMORY_AVAILABLE, _words(fullest))


MEMORY_PRESSURE: tuple[Policy, ...] = (
    refused,
    resting,
    unplaced,
    short,
    unheard,
    unread,
    waiting_for_pods,
    available,
)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a status shows of its pods' memory."""

    condition: Condition
    level: MemoryLevel | None = None
    since: str | None = None
    """When any of this last changed."""
    due: float | None = None
    """Seconds until a change that is held back may be shown."""


def pressure(s: Snapshot) -> Pressure:
    """Return what to show: what is so, or what was shown if that changed only a moment ago."""
    now, before = rfc3339(s.observed.now), _shown(s)
    said = finding(MEMORY_PRESSURE, s)
    current = Pressure(
        condition=Condition(
            type=ConditionType.MEMORY_PRESSURE.value,
            status=said.status,
            reason=said.reason.value,
            message=said.message,
            observed_generation=s.generation,
            last_transition_time=now,
        ),
        level=worst([h.level for h in s.holders if h.level is not None]),
        since=now,
    )
    if before is None or before.since is None:
        return current if current.level is not None else replace(current, since=None)
    kept = before.condition.model_copy(update={"observed_generation": s.generation})
    if _facts(current) == _facts(before):
        return replace(before, condition=kept)
    if s.held_seconds:
        return replace(before, condition=kept, due=s.held_seconds)
    return current


def _shown(s: Snapshot) -> Pressure | None:
    """Return what status shows as it stands."""
    condition, memory = s.before(ConditionType.MEMORY_PRESSURE), s.previous.memory
    if condition is None or memory is None:
        return None
    return Pressure(condition, memory.level, memory.level_since)


def _facts(shown: Pressure) -> tuple[object, ...]:
    said = shown.condition
    return (said.status, said.reason, said.message, shown.level)


def _rank(holder: Holder) -> int:
    return holder.level.rank if holder.level is not None else -1


def _words(holder: Holder) -> str:
    """Return what a pod says, in words that stay the same as long as its level does."""
    report = holder.view.fresh if holder.view is not None else None
    if report is None or holder.level is None:
        return "no pod says how full its memory is"
    # GPUs come first; of several, the level is that of the fullest.
    full = (device for device in report.devices if device.level is holder.level)
    device = next(full, report.devices[0] if report.devices else None)
    of = f" with {readable(device.total_bytes)} of {device.name}" if device is not None else ""
    return f"memory of pod {report.pod}{of} is at level {holder.level}"
