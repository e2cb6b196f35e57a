"""What requests to a model may expect; a change takes effect at once, without a reload."""

from typing import Annotated

from pydantic import Field

from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.sampling import SamplingDefaults


class ResponseCache(KubeModel):
    """Which answers are given again without being computed."""

    ttl_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=604800,
            description=(
                "Seconds for which a pod keeps the answer to a chat at temperature 0, and gives it "
                "again to the API key that asks the same. 0: not at all."
            ),
        ),
    ]


class ServingLimits(KubeModel):
    """What a request may expect; a change takes effect at once, without a reload."""

    max_queue: Annotated[
        int | None,
        Field(
            ge=0,
            le=100000,
            description="Requests that may wait per pod; one more is answered 429. Unset: 64.",
        ),
    ] = None
    hold_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=3600,
            description=(
                "Seconds a request is held while its model loads, before it is answered 503. "
                "Unset: 120."
            ),
        ),
    ] = None
    request_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=86400,
            description="Seconds a request may take in all, its stream included. Unset: 300.",
        ),
    ] = None
    requests_per_minute: Annotated[
        int | None,
        Field(
            ge=0,
            le=10_000_000,
            description=(
                "Requests a minute that each API key may send to a pod that holds the model; one "
                "more is answered 429. Unset or 0: no limit."
            ),
        ),
    ] = None
    tokens_per_minute: Annotated[
        int | None,
        Field(
            ge=0,
            le=1_000_000_000,
            description=(
                "Tokens a minute, of prompts and answers, that each API key may use of a pod that "
                "holds the model. Unset or 0: no limit."
            ),
        ),
    ] = None
    defaults: Annotated[
        SamplingDefaults | None,
        Field(description="How tokens are chosen where a request does not say."),
    ] = None
    response_cache: Annotated[
        ResponseCache | None,
        Field(description="Which answers are given again without being computed. Unset: none."),
    ] = None
