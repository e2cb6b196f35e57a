"""Findings: what is said of one condition of a resource, and by whom.

Each policy looks at a resource and what is around it, and either says what the condition is, or
passes. The first of a chain that speaks decides; the last always does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

from ullage_api.conditions import Condition, ConditionType, Reason
from ullage_operator.reconcile.observed import (
    CollectionObserved,
    ModelObserved,
    effective_profile,
)

MESSAGE_LIMIT: Final = 1024

Status = Literal["True", "False", "Unknown"]
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a policy says: a condition without its type and times."""

    status: Status
    reason: Reason
    message: str


class Concerned(Protocol):
    """A member of a pool as its policies see it."""

    @property
    def observed(self) -> ModelObserved | CollectionObserved:
        """The resource, and all that its plan depends on."""
        ...


def finding(chain: Iterable[Callable[[S], Finding | None]], seen: S) -> Finding:
    """Return what the first policy that speaks says."""
    for policy in chain:
        said = policy(seen)
        if said is not None:
            text = said.message
            short = text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
            return Finding(said.status, said.reason, short)
    raise AssertionError("a chain of policies must end with one that always speaks")


def condition(kind: ConditionType, said: Finding, generation: int) -> Condition:
    """Return the condition that a finding is; when it last changed, others know."""
    return Condition(
        type=kind.value,
        status=said.status,
        reason=said.reason.value,
        message=said.message,
        observed_generation=generation,
        last_transition_time="",
    )


# --- Policies of every member of a pool -------------------------------------------------------


def unknown_pool(s: Concerned) -> Finding | None:
    """There is no profile, and there never was a good one."""
    view = s.observed.profile
    if effective_profile(view, s.observed.pool.profile) is not None:
        return None
    pool = s.observed.resource.spec.pool
    known = ", ".join(view.known) or "none"
    what = f"the profile of pool {pool!r} is not valid ({view.error})" if view.exists else ""
    what = what or f"there is no pool {pool!r}"
    return Finding("False", Reason.UNKNOWN_POOL, f"{what}; known pools: {known}")


def accepted(s: Concerned) -> Finding:
    """Nothing speaks against it."""
    pool = s.observed.resource.spec.pool
    return Finding("True", Reason.ACCEPTED, f"the spec is valid and pool {pool!r} exists")
