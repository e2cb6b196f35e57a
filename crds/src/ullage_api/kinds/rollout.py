"""How a new revision takes over from the one that answers, and how far it has come."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ullage_api.kinds.base import KubeModel, rule, validations


class Strategy(StrEnum):
    """In what order a new revision is loaded and the old one leaves."""

    AUTO = "Auto"
    LOAD_THEN_DRAIN = "LoadThenDrain"
    DRAIN_THEN_LOAD = "DrainThenLoad"


class Transition(StrEnum):
    """Where a model stands between what answers and what the spec asks for."""

    UP_TO_DATE = "UpToDate"
    """What the spec asks for answers, or would with the next request."""
    IN_PROGRESS = "InProgress"
    """It is being fetched, loaded, compared or watched."""
    BLOCKED_BY_FAILED_LOAD = "BlockedByFailedLoad"
    """It could not be loaded, or did not pass its checks; what answered before still does."""
    ROLLED_BACK = "RolledBack"
    """It answered, did worse than the one before, and that one answers again."""


class SwapStep(StrEnum):
    """What a swap is doing."""

    FETCHING = "Fetching"
    DRAINING = "Draining"
    """The old revision finishes its requests before the new one is loaded; new ones are held."""
    LOADING = "Loading"
    CHECKING = "Checking"
    CANARY = "Canary"
    """Both answer, each its share of the requests."""
    WATCHING = "Watching"
    """The new one answers, and the old one stands by."""


class Expectation(KubeModel):
    """What an answer must be like."""

    contains: Annotated[
        str | None,
        Field(min_length=1, max_length=1024, description="Text that the answer must contain."),
    ] = None
    equals: Annotated[
        str | None,
        Field(
            max_length=1024,
            description="Text that the answer must be, apart from spaces around it.",
        ),
    ] = None


class ValidationPrompt(KubeModel):
    """One question that a new revision must answer before it may answer anybody else."""

    prompt: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description=(
                "What the model is asked, with temperature 0 and at most 64 tokens; for Embedding "
                "and Rerank, the text that is embedded or scored."
            ),
        ),
    ]
    expect: Annotated[
        Expectation | None,
        Field(
            description="What the answer must be like. Unset: any answer will do.",
            json_schema_extra=validations(
                rule(
                    "has(self.contains) != has(self.equals)",
                    "rollout.validation.expect must have one of contains and equals",
                )
            ),
        ),
    ] = None
    max_seconds: Annotated[
        int | None,
        Field(ge=1, le=600, description="Seconds the answer may take. Unset: 300."),
    ] = None


class CanaryStep(KubeModel):
    """A share of the requests, for a time."""

    weight: Annotated[
        int, Field(ge=1, le=99, description="Percent of the requests that the new revision gets.")
    ]
    seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=604800,
            description="How long. Unset: until the spec changes, to compare two revisions.",
        ),
    ] = None


class CanarySettings(KubeModel):
    """How a new revision answers a share of the requests before it gets them all."""

    steps: Annotated[
        list[CanaryStep],
        Field(
            min_length=1,
            max_length=16,
            description="Shares of the requests, one after the other.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ]
    max_error_percent: Annotated[
        int | None,
        Field(
            ge=0,
            le=100,
            description=(
                "Percent of its requests that may fail through its fault; more, and more than on "
                "the old revision, take it back. Unset: 1."
            ),
        ),
    ] = None
    max_latency_ratio_percent: Annotated[
        int | None,
        Field(
            ge=100,
            le=10000,
            description=(
                "Percent of the old revision's time for a token that it may take, as the median; "
                "more takes it back. Unset: times are not compared."
            ),
        ),
    ] = None


class RolloutSettings(KubeModel):
    """How a new revision takes over; a change takes effect with the next one."""

    strategy: Annotated[
        Strategy | None,
        Field(
            description=(
                "LoadThenDrain loads the new revision beside the old one, so that no request "
                "waits; DrainThenLoad holds new requests, lets the old one finish and leave, and "
                "then loads; Auto does the former where there is room and else the latter. "
                "Unset: Auto."
            ),
        ),
    ] = None
    drain_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=86400,
            description=(
                "Seconds that requests on the old revision have to end; what still runs then is "
                "ended with an error. Unset: 30 with DrainThenLoad, where others wait for it, and "
                "otherwise as long as serving.requestSeconds lets them."
            ),
        ),
    ] = None
    validation: Annotated[
        list[ValidationPrompt] | None,
        Field(
            max_length=16,
            description="Questions that a new revision must answer before it takes over.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = None

    canary: Annotated[
        CanarySettings | None,
        Field(
            description=(
                "Shares of the requests that the new revision gets first, compared with the old "
                "one; where there is room for both."
            )
        ),
    ] = None
    watch_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=86400,
            description=(
                "Seconds after the switch in which the old revision stands by, where there is room "
                "for both, and answers again if the new one dies or exceeds canary's limits. "
                "Unset: 0."
            ),
        ),
    ] = None

    @property
    def effective_strategy(self) -> Strategy:
        """The strategy, also where none is set."""
        return self.strategy or Strategy.AUTO
