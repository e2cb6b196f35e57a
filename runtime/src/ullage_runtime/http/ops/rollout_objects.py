"""How one revision takes another's place, as a pod shows it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ullage_api.conditions import Reason
from ullage_api.kinds.rollout import Strategy, SwapStep, Transition
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredRevision


class _Told(BaseModel):
    """What says the same as a part of the pod's report."""

    model_config = ConfigDict(from_attributes=True)


class RolloutArm(_Told):
    """One of two revisions whose answers are compared."""

    revision: str
    weight: Annotated[int, Field(description="Percent of the requests that it gets.")]
    requests: Annotated[
        int, Field(description="How many have ended of those that it got since then.")
    ]
    errors: Annotated[int, Field(description="How many of them failed through its fault.")]
    token_ms_p50: Annotated[
        float | None,
        Field(
            validation_alias="token_milliseconds",
            description="Milliseconds for a token of an answer, the median.",
        ),
    ]
    token_ms_p95: Annotated[
        float | None,
        Field(
            validation_alias="slow_token_milliseconds",
            description="Likewise, what 95 % of the answers did not exceed.",
        ),
    ]


class RolloutSwap(_Told):
    """The swap under way, or the last one since the pod began."""

    previous: Annotated[str | None, Field(description="Revision that answered before.")]
    target: Annotated[str | None, Field(description="Revision that takes over, once it is known.")]
    strategy: Annotated[Strategy | None, Field(description="The one that was taken.")]
    step: Annotated[SwapStep | None, Field(description="What is being done; null once it is over.")]
    started: Annotated[str, Field(description="When it began, in UTC.")]
    seconds: Annotated[float | None, Field(description="How long it took in all.")]
    drain_seconds: Annotated[
        float | None,
        Field(description="How long requests were held while the previous revision finished."),
    ]
    log: Annotated[
        list[str], Field(description="The engine's last lines, when the target could not load.")
    ]
    arms: Annotated[list[RolloutArm], Field(description="Both revisions, if they were compared.")]


class RolloutRevision(BaseModel):
    """A revision that has answered."""

    name: Annotated[str, Field(description="As a way back wants it.")]
    uri: str


class RollbackBody(BaseModel):
    """What to go back to."""

    revision: Annotated[
        str | None,
        Field(
            max_length=64,
            description="A revision's name; unset: what answered before what is wanted now.",
        ),
    ] = None


class Rollout(BaseModel):
    """Which revision of a model answers on this pod, and which is to."""

    object: Literal["rollout"] = "rollout"
    id: str
    active: Annotated[str | None, Field(description="Revision that answers.")]
    target: Annotated[str | None, Field(description="Revision that the spec asks for, once known.")]
    transition: Annotated[Transition | None, Field(description="Where it stands between the two.")]
    reason: Reason
    message: Annotated[str, Field(description="The same in words and numbers.")]
    swap: RolloutSwap | None
    revisions: Annotated[
        list[RolloutRevision],
        Field(description="Those that have answered since the pod began, the latest first."),
    ]


def rollout(model: ReportedModel, answered: Sequence[DesiredRevision]) -> Rollout:
    """Return how a model's rollout is shown, and what of it has answered."""
    return Rollout(
        id=model.name,
        active=model.active.revision if model.active else None,
        target=model.target.revision if model.target else None,
        transition=model.transition,
        reason=model.reason,
        message=model.message,
        swap=None if model.swap is None else RolloutSwap.model_validate(model.swap),
        revisions=[RolloutRevision(name=r.name, uri=r.uri) for r in answered if r.name],
    )
