"""What the operator tells of a model, as status shows it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ullage_api.conditions import Conditions
from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.memory import Eviction, MemoryLevel
from ullage_api.kinds.revision import HISTORY, RevisionStatus
from ullage_api.kinds.rollout import Transition


class Residency(StrEnum):
    """Where a model's weights are."""

    DISK = "Disk"
    LOADING = "Loading"
    RESIDENT = "Resident"
    WARM = "Warm"
    UNLOADING = "Unloading"


class MemoryStatus(KubeModel):
    """Where the model's weights are and how many bytes it takes."""

    residency: Annotated[
        Residency | None, Field(description="Disk, Loading, Resident, Warm or Unloading.")
    ] = None
    estimated_bytes: Annotated[
        int | None,
        Field(ge=0, description="Bytes the model was expected to need."),
    ] = None
    resident_bytes: Annotated[
        int | None, Field(ge=0, description="Bytes it takes on one pod, as measured.")
    ] = None
    resident: Annotated[
        str | None, Field(max_length=32, description="The same for people, such as 14.2 GiB.")
    ] = None
    host_bytes: Annotated[
        int | None,
        Field(ge=0, description="Bytes that one pod's host memory keeps of it for its return."),
    ] = None
    level: Annotated[
        MemoryLevel | None,
        Field(
            description=(
                "How full the memory of the model's fullest pod is: Low, Moderate, High or "
                "Critical; absent while no pod says."
            ),
        ),
    ] = None
    level_since: Annotated[
        str | None,
        Field(
            description="When the level or MemoryPressure last changed, in UTC.",
            json_schema_extra={"format": "date-time"},
        ),
    ] = None
    last_eviction: Annotated[
        Eviction | None, Field(description="When and why it last left memory on some pod.")
    ] = None


class AccelerationStatus(KubeModel):
    """What computes the model, on the lowest pod that answers."""

    device: Annotated[
        str | None, Field(max_length=253, description="The GPU's name, or CPU and its variant.")
    ] = None
    layers_offloaded: Annotated[
        int | None, Field(ge=0, description="Layers that are on the GPU.")
    ] = None
    layers_total: Annotated[int | None, Field(ge=0, description="Layers that there are.")] = None


class PerformanceStatus(KubeModel):
    """How long it took to have the model, on the lowest pod that answers."""

    load_seconds: Annotated[
        str | None, Field(max_length=16, description="What its last load took, such as 1.6.")
    ] = None
    promote_seconds: Annotated[
        str | None,
        Field(max_length=16, description="What its last return from the warm tier took."),
    ] = None


class Placement(KubeModel):
    """One pod that holds the model."""

    pod: Annotated[str, Field(max_length=253, description="Name of the pod.")]
    residency: Annotated[Residency, Field(description="Where the weights are on that pod.")]
    revision: Annotated[
        str | None, Field(max_length=64, description="Revision that answers on that pod.")
    ] = None


class ArmStatus(KubeModel):
    """One of two revisions whose answers are compared."""

    revision: Annotated[str, Field(max_length=64, description="Name of the revision.")]
    weight: Annotated[int, Field(ge=0, le=100, description="Percent of the requests that it gets.")]
    requests: Annotated[
        int,
        Field(
            ge=0, description="How many have ended of those that it got since they are compared."
        ),
    ] = 0
    errors: Annotated[
        int, Field(ge=0, description="How many of them failed through the revision's fault.")
    ] = 0
    token_microseconds_p50: Annotated[
        int | None,
        Field(
            ge=0,
            description="Median time that a token of an answer took, or an answer without tokens.",
        ),
    ] = None
    token_microseconds_p95: Annotated[
        int | None, Field(ge=0, description="Likewise, what 95 % of the answers did not exceed.")
    ] = None


class AdapterStatus(KubeModel):
    """One adapter of the revision that answers."""

    name: Annotated[str, Field(max_length=63, description="Name of the adapter.")]
    sha256: Annotated[str, Field(max_length=64, description="SHA-256 of the file that is applied.")]


class ModelDeploymentStatus(KubeModel):
    """What is so, as the operator last observed it."""

    observed_generation: Annotated[
        int | None, Field(ge=0, description="Generation of the spec this status speaks of.")
    ] = None
    conditions: Annotated[Conditions, Field(description="Observations of the model's state.")] = (
        None
    )
    url: Annotated[
        str | None,
        Field(max_length=512, description="OpenAI-compatible base address within the cluster."),
    ] = None
    model: Annotated[str | None, Field(max_length=512, description="Name of the model's file.")] = (
        None
    )
    engine: Annotated[str | None, Field(max_length=64, description="Engine that serves it.")] = None
    context_length: Annotated[
        int | None, Field(ge=0, description="Tokens of context in effect.")
    ] = None
    sha256: Annotated[
        str | None, Field(max_length=64, description="SHA-256 of the file that answers.")
    ] = None
    adapters: Annotated[
        list[AdapterStatus] | None,
        Field(
            max_length=16,
            description="Adapters of the revision that answers.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = None
    active_revision: Annotated[
        str | None, Field(max_length=64, description="Revision that answers now.")
    ] = None
    target_revision: Annotated[
        str | None,
        Field(max_length=64, description="Revision the spec asks for, once its digest is known."),
    ] = None
    transition: Annotated[
        Transition | None,
        Field(
            description=(
                "Where it stands between the two: UpToDate, InProgress, BlockedByFailedLoad or "
                "RolledBack; absent while nothing is to serve."
            )
        ),
    ] = None
    revisions: Annotated[
        list[RevisionStatus] | None,
        Field(
            max_length=HISTORY,
            description="Revisions that were tried, the newest first.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = None
    arms: Annotated[
        list[ArmStatus] | None,
        Field(
            max_length=2,
            description=(
                "Two revisions that both answered, the older one first, while the newer one is "
                "compared with it and afterwards; on the pod that took the newer one first."
            ),
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["revision"],
            },
        ),
    ] = None
    memory: Annotated[MemoryStatus | None, Field(description="Memory the model takes.")] = None
    acceleration: Annotated[
        AccelerationStatus | None, Field(description="What computes the revision that answers.")
    ] = None
    performance: Annotated[
        PerformanceStatus | None,
        Field(
            description=(
                "How long loads of the revision that answers took; written with the next change "
                "of anything else."
            )
        ),
    ] = None
    placements: Annotated[
        list[Placement] | None,
        Field(
            max_length=64,
            description="Pods that hold the model.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["pod"],
            },
        ),
    ] = None
    replicas: Annotated[int | None, Field(ge=0, description="Pods the model is placed on.")] = None
    ready_replicas: Annotated[int | None, Field(ge=0, description="Pods that serve it now.")] = None
    selector: Annotated[
        str | None,
        Field(max_length=512, description="Label selector of the pods that hold the model."),
    ] = None
