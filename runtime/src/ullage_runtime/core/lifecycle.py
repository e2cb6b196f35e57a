"""What to do next for one model on one pod, as a pure function of its situation."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the next step depends on; wants are compared, never looked into."""

    target: Hashable
    """What the spec asks for."""
    wanted: bool = True
    """Whether this pod should serve the model at all."""
    active: Hashable | None = None
    """What answers now."""
    last_good: Hashable | None = None
    """What answered last, pinned to its digest."""
    proven_first: bool = False
    """Whether that must answer before the target may."""
    waits: bool = False
    """Whether the target is not to be brought up yet, while something else can answer."""
    failed: frozenset[Hashable] = frozenset()
    """What cannot be loaded until the spec changes."""
    retry_at: Mapping[Hashable, float] = field(default_factory=dict)
    """When what failed for a passing cause may be tried again."""
    restart_at: float = 0.0
    """When an engine may be started again after one died."""
    idle_at: float | None = None
    """When what answers will have been idle for as long as it may; None: as long as it likes."""
    asleep: bool = False
    """Whether it left memory and need not be back before somebody asks for it."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before a time, or before something changes."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class Retire:
    """Drain and unload what answers now."""


@dataclass(frozen=True, slots=True)
class Park:
    """Unload what answers now until somebody asks for it again."""


@dataclass(frozen=True, slots=True)
class BringUp:
    """Load a revision and switch to it."""

    want: Hashable


Step = Rest | Retire | Park | BringUp


def next_step(situation: Situation, now: float) -> Step:
    """Return what to do now.

    The target comes first. When nothing answers and the target must wait or cannot load, what
    answered last comes back, so that a bad target never costs more than the good one's reload.
    """
    if not situation.wanted:
        return Rest() if situation.active is None else Retire()
    if situation.active == situation.target:
        idle = situation.idle_at is not None and situation.idle_at <= now
        return Park() if idle else Rest(situation.idle_at)
    if situation.active is None and situation.asleep:
        return Rest()
    waits = []
    for want in _candidates(situation):
        ready = _ready_at(situation, want)
        if ready <= now:
            return BringUp(want)
        waits.append(ready)
    return Rest(min(waits, default=None))


def _candidates(situation: Situation) -> list[Hashable]:
    wants = [situation.target]
    if situation.waits and situation.active is not None:
        return []
    if situation.active is None and situation.last_good is not None:
        first = situation.proven_first or situation.waits
        wants.insert(0 if first else 1, situation.last_good)
    return [want for want in wants if want not in situation.failed]


def _ready_at(situation: Situation, want: Hashable) -> float:
    retry = situation.retry_at.get(want, 0.0)
    return retry if situation.active is not None else max(retry, situation.restart_at)
