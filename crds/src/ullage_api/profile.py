"""Pool profiles: what platform admins decide about the pods that teams share."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ullage_api.kinds.base import KubeModel
from ullage_api.names import MAX_NAME_LENGTH, SAMPLE_MODELS_DIR, is_valid_name

GIB = 1 << 30


class LevelThresholds(KubeModel):
    """From how much memory in use a pod's level is what; percentages of the device's memory."""

    moderate: Annotated[int, Field(ge=1, le=100, description="Moderate from here.")] = 60
    high: Annotated[int, Field(ge=1, le=100, description="High from here.")] = 80
    critical: Annotated[int, Field(ge=1, le=100, description="Critical from here.")] = 90

    @model_validator(mode="after")
    def _ordered(self) -> "LevelThresholds":
        if not self.moderate < self.high < self.critical:
            raise ValueError(
                f"levels must rise: moderate ({self.moderate}) < high ({self.high}) < critical "
                f"({self.critical})"
            )
        return self


class RuntimeSettings(KubeModel):
    """What a pool's pods need to know of their profile; part of the desired document."""

    file_roots: Annotated[
        tuple[str, ...],
        Field(
            max_length=16,
            description="Folders beneath which file: models may lie, after resolving links.",
        ),
    ] = (SAMPLE_MODELS_DIR,)
    allow_http: Annotated[
        bool, Field(description="Whether models may come over plain http://.")
    ] = False
    allow_private_addresses: Annotated[
        bool,
        Field(description="Whether model sources may resolve to private or loopback addresses."),
    ] = False
    max_model_bytes: Annotated[
        int, Field(ge=1, description="Largest model file accepted, in bytes.")
    ] = 512 * GIB
    memory_max_percent: Annotated[
        int, Field(ge=1, le=100, description="Share of the device's memory that models may take.")
    ] = 90
    memory_reserve_percent: Annotated[
        int,
        Field(
            ge=0,
            le=99,
            description="Share of it that always stays free, whatever memoryMaxPercent allows.",
        ),
    ] = 10
    levels: Annotated[
        LevelThresholds,
        Field(description="Percentages in use from which memory is called short."),
    ] = LevelThresholds()
    max_body_bytes: Annotated[
        int, Field(ge=1024, description="Largest request body accepted, in bytes; 413 above it.")
    ] = 16 << 20
    max_concurrent_requests: Annotated[
        int, Field(ge=1, description="Requests a pod works on at once; 429 above it.")
    ] = 512
    cors_origins: Annotated[
        tuple[str, ...],
        Field(max_length=64, description="Origins that browsers may call from; '*' for all."),
    ] = ("*",)
    default_collection: Annotated[
        str | None,
        Field(
            max_length=253,
            description="Collection that /search, /hybrid_search and /upsert mean by default.",
        ),
    ] = None


class Replicas(KubeModel):
    """How many pods a pool may have."""

    min: Annotated[int, Field(ge=1, le=64, description="Fewest pods.")] = 1
    max: Annotated[int, Field(ge=1, le=64, description="Most pods.")] = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Replicas":
        if self.min > self.max:
            raise ValueError(f"replicas.min ({self.min}) must not exceed replicas.max ({self.max})")
        return self


class Auth(KubeModel):
    """Who may call the pool's pods."""

    secret_name: Annotated[
        str | None,
        Field(
            max_length=253,
            description=(
                "Secret, in the pool's namespace, with one hashed API key per entry; unset lets "
                "everybody in the network in."
            ),
        ),
    ] = None


class Cache(KubeModel):
    """Where fetched models are kept."""

    size: Annotated[
        str, Field(max_length=32, description="Size of the volume, as a Kubernetes quantity.")
    ] = "20Gi"
    storage_class: Annotated[
        str | None,
        Field(
            max_length=253,
            description="StorageClass of a volume per pod; unset keeps the cache in an emptyDir.",
        ),
    ] = None


class CollectionsVolume(KubeModel):
    """Where a pool's collections are kept, once it has any."""

    size: Annotated[
        str, Field(max_length=32, description="Size of the volume, as a Kubernetes quantity.")
    ] = "10Gi"
    storage_class: Annotated[
        str | None,
        Field(
            max_length=253,
            description="StorageClass of the volume; unset takes the cluster's default.",
        ),
    ] = None


class UpdateStrategy(StrEnum):
    """How a pool's pods are replaced when their template changes."""

    ROLLING_UPDATE = "RollingUpdate"
    ON_DELETE = "OnDelete"


class PoolProfile(KubeModel):
    """One kind of pool, as the platform's admins define it in the chart's values."""

    image: Annotated[str, Field(min_length=1, max_length=512, description="Runtime image.")]
    image_pull_policy: Annotated[
        str, Field(pattern="^(Always|IfNotPresent|Never)$", description="When to pull the image.")
    ] = "IfNotPresent"
    image_pull_secrets: Annotated[
        tuple[str, ...], Field(max_length=16, description="Secrets for pulling the image.")
    ] = ()
    replicas: Annotated[Replicas, Field(description="How many pods.")] = Replicas()
    resources: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="Kubernetes resources of the runtime container."),
    ]
    node_selector: Annotated[
        dict[str, str], Field(default_factory=dict, description="Nodes the pods may run on.")
    ]
    tolerations: Annotated[
        tuple[dict[str, Any], ...], Field(max_length=32, description="Taints the pods tolerate.")
    ] = ()
    affinity: Annotated[
        dict[str, Any], Field(default_factory=dict, description="Kubernetes affinity of the pods.")
    ]
    runtime_class_name: Annotated[
        str | None, Field(max_length=253, description="Kubernetes RuntimeClass of the pods.")
    ] = None
    priority_class_name: Annotated[
        str | None, Field(max_length=253, description="Kubernetes PriorityClass of the pods.")
    ] = None
    update_strategy: Annotated[
        UpdateStrategy, Field(description="How pods are replaced when the profile changes.")
    ] = UpdateStrategy.ROLLING_UPDATE
    drain_seconds: Annotated[
        int,
        Field(ge=0, le=3600, description="Longest that an ending pod may take for its streams."),
    ] = 60
    cache: Annotated[Cache, Field(description="Where fetched models are kept.")] = Cache()
    collections: Annotated[
        CollectionsVolume,
        Field(description="Where collections are kept; the volume outlives pool and pods."),
    ] = CollectionsVolume()
    volumes: Annotated[
        tuple[dict[str, Any], ...],
        Field(max_length=16, description="Further Kubernetes volumes of the pods."),
    ] = ()
    volume_mounts: Annotated[
        tuple[dict[str, Any], ...],
        Field(max_length=16, description="Where those volumes are mounted."),
    ] = ()
    env: Annotated[
        tuple[dict[str, Any], ...],
        Field(max_length=64, description="Further environment variables of the container."),
    ] = ()
    auth: Annotated[Auth, Field(description="Who may call the pods.")] = Auth()
    runtime: Annotated[
        RuntimeSettings, Field(description="Settings passed on to the pods; no restart needed.")
    ] = RuntimeSettings()

    @field_validator("volumes")
    @classmethod
    def _no_reserved_volumes(
        cls, volumes: tuple[dict[str, Any], ...]
    ) -> tuple[dict[str, Any], ...]:
        reserved = {
            "desired",
            "token",
            "credentials",
            "cache",
            "state",
            "tmp",
            "keys",
            "collections",
        }
        taken = sorted(reserved & {str(v.get("name")) for v in volumes})
        if taken:
            raise ValueError(f"volume names {', '.join(taken)} are reserved; choose others")
        return volumes


def checked_pool_name(name: str) -> str:
    """Return the name, or raise ValueError when a pool may not be called so."""
    if not is_valid_name(name):
        raise ValueError(
            f"pool name {name!r} must be at most {MAX_NAME_LENGTH} lower-case letters, digits "
            "and '-', beginning with a letter"
        )
    return name
