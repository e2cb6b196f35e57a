"""What is told of a reindex job, by the pod that runs it and by its status."""

from typing import Annotated

from pydantic import Field

from ullage_api.conditions import Conditions
from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.collection_status import EmbeddedBy
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan

Percent = Annotated[int | None, Field(ge=0, le=100)]
Moment = Annotated[str | None, Field(max_length=40)]


class ReindexTarget(KubeModel):
    """What the collection is brought to, pinned when the job begins."""

    generation: Annotated[
        int | None,
        Field(
            ge=1,
            description="Generation of the VectorCollection's spec that it is; absent outside a "
            "cluster, where specs have none.",
        ),
    ] = None
    physical_collection: Annotated[
        str | None, Field(max_length=128, description="Name of what is filled in the store.")
    ] = None
    epoch: Annotated[
        int | None, Field(ge=0, description="The collection's epoch once it is switched.")
    ] = None
    model: Annotated[
        EmbeddedBy | None, Field(description="The model that its dense vectors come from.")
    ] = None
    profile: Annotated[
        str | None, Field(max_length=64, description="What its index is built for.")
    ] = None


class ReindexPoints(KubeModel):
    """How many points, or documents where they are cut anew, have come how far."""

    total: Annotated[int | None, Field(ge=0, description="How many there are to copy.")] = None
    copied: Annotated[int, Field(ge=0, description="How many of them are done.")] = 0
    caught_up: Annotated[
        int, Field(ge=0, description="Changes made meanwhile that the target has too.")
    ] = 0
    failed: Annotated[
        int, Field(ge=0, description="How many could not be brought over; each has its reason.")
    ] = 0


class ReindexVerification(KubeModel):
    """What the target was found to be like before searches were sent to it."""

    passed: Annotated[bool, Field(description="Whether every gate was passed.")]
    compared: Annotated[
        int | None, Field(ge=0, description="Points whose versions were compared, one by one.")
    ] = None
    missing: Annotated[
        int | None, Field(ge=0, description="Points that the target should have and has not.")
    ] = None
    foreign: Annotated[
        int | None, Field(ge=0, description="Points that nobody wrote through Ullage.")
    ] = None
    differing: Annotated[
        int | None, Field(ge=0, description="Points of another version or content.")
    ] = None
    sampled: Annotated[
        int | None, Field(ge=0, description="Points whose contents were compared.")
    ] = None
    recall_percent: Annotated[
        Percent, Field(description="Share of the ten nearest, by exact search, that it finds.")
    ] = None
    self_retrieval_percent: Annotated[
        Percent, Field(description="Share of the samples that find themselves first.")
    ] = None
    p95_milliseconds: Annotated[
        int | None, Field(ge=0, description="What 95 % of the searches in it did not exceed.")
    ] = None
    time: Annotated[Moment, Field(description="When that was, in UTC.")] = None
    message: Annotated[
        str, Field(max_length=1024, description="What was found, in words and numbers.")
    ] = ""


class ReindexJobStatus(KubeModel):
    """What is so, as the operator last observed it."""

    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec this status speaks of.")
    ] = None
    conditions: Annotated[Conditions, Field(description="Observations of the job's state.")] = None
    phase: Annotated[ReindexPhase | None, Field(description="What it is doing.")] = None
    plan: Annotated[
        ReindexPlan | None,
        Field(description="The way it takes: AlreadyCurrent, InPlace, Copy, Reembed or Rechunk."),
    ] = None
    plan_reason: Annotated[
        str | None, Field(max_length=1024, description="Why that is the way.")
    ] = None
    target: Annotated[
        ReindexTarget | None, Field(description="What the collection is brought to.")
    ] = None
    points: Annotated[ReindexPoints | None, Field(description="How far it has come.")] = None
    progress: Annotated[
        str | None, Field(max_length=16, description="The same in percent, such as 42%.")
    ] = None
    rate: Annotated[int | None, Field(ge=0, description="Points per second of late.")] = None
    eta_seconds: Annotated[
        int | None, Field(ge=0, description="How long the copying takes yet, at that rate.")
    ] = None
    verification: Annotated[
        ReindexVerification | None, Field(description="What the target was found to be like.")
    ] = None
    checkpoint_time: Annotated[
        Moment, Field(description="When it last kept how far it has come, in UTC.")
    ] = None
    start_time: Annotated[Moment, Field(description="When it was first worked on, in UTC.")] = None
    completion_time: Annotated[Moment, Field(description="When it was over, in UTC.")] = None
