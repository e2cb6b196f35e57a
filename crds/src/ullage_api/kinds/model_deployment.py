"""ModelDeployment: one model, served OpenAI-compatibly by a pool of runtime pods."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ullage_api.kinds.base import (
    NAME_RULE,
    POOL_RULE,
    KubeModel,
    Resource,
    rule,
    validations,
)
from ullage_api.kinds.columns import Column
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_source import ModelSource
from ullage_api.kinds.model_status import ModelDeploymentStatus
from ullage_api.kinds.rollout import RolloutSettings
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.names import API_VERSION, MAX_NAME_LENGTH, adapter_name


class Task(StrEnum):
    """What a model is for."""

    CHAT = "Chat"
    COMPLETION = "Completion"
    EMBEDDING = "Embedding"
    RERANK = "Rerank"


class ModelDeploymentSpec(KubeModel):
    """What is wanted of one model."""

    pool: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description="Pool of runtime pods that serves the model; cannot be changed later.",
            json_schema_extra=validations(
                rule(
                    "self == oldSelf",
                    "pool cannot be changed; create another ModelDeployment in the other pool",
                ),
                POOL_RULE,
            ),
        ),
    ]
    task: Annotated[
        Task,
        Field(
            description=(
                "What the model is for: Chat, Completion (which answers no chats), Embedding, or "
                "Rerank for a cross-encoder."
            ),
        ),
    ]
    aliases: Annotated[
        list[
            Annotated[
                str,
                Field(
                    min_length=1,
                    max_length=128,
                    json_schema_extra=validations(
                        rule(
                            "self.matches('^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$')",
                            "an alias must be letters, digits and any of . _ : / - in between",
                        )
                    ),
                ),
            ]
        ]
        | None,
        Field(
            max_length=16,
            description="Further names a client may ask for.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = None
    model: Annotated[ModelSource, Field(description="The model's file.")]
    engine: Annotated[
        EngineSettings | None, Field(description="How the engine loads the model.")
    ] = None
    residency: Annotated[
        ResidencySettings | None,
        Field(description="How it shares memory with the other models of its pool."),
    ] = None
    rollout: Annotated[
        RolloutSettings | None, Field(description="How a new revision takes over.")
    ] = None
    serving: Annotated[
        ServingLimits | None, Field(description="Limits and defaults of requests.")
    ] = None
    replicas: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description=(
                "Pods of the pool that hold the model; 0 keeps the weights cached and serves "
                "nothing."
            ),
        ),
    ] = 1
    suspend: Annotated[
        bool | None,
        Field(description="True unloads the model; requests are answered 503 model_suspended."),
    ] = None

    @property
    def is_serving_wanted(self) -> bool:
        """Whether any pod should serve the model."""
        return not self.suspend and self.replicas > 0


class ModelDeployment(Resource):
    """A model that a team wants served: its file, its engine settings and the pool that runs it."""

    PLURAL: ClassVar[str] = "modeldeployments"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("mdep",)
    SCALE: ClassVar[dict[str, str] | None] = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Model", "string", ".status.model", "File that answers."),
        Column("Engine", "string", ".status.engine", "Engine that serves it."),
        Column(
            "Ready",
            "string",
            '.status.conditions[?(@.type=="Ready")].status',
            "Whether it answers.",
        ),
        Column(
            "Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why, in a word."
        ),
        Column("Residency", "string", ".status.memory.residency", "Where the weights are."),
        Column("VRAM", "string", ".status.memory.resident", "Memory it takes on one pod's device."),
        Column("Replicas", "integer", ".status.readyReplicas", "Pods that serve it now."),
        Column("Age", "date", ".metadata.creationTimestamp", "Time since it was created."),
        Column("URL", "string", ".status.url", "Base address within the cluster.", priority=1),
        Column(
            "Revision", "string", ".status.activeRevision", "Revision that answers.", priority=1
        ),
        Column(
            "Level", "string", ".status.memory.level", "How full its pod's memory is.", priority=1
        ),
        Column(
            "Message",
            "string",
            '.status.conditions[?(@.type=="Ready")].message',
            "Why, in words and numbers.",
            priority=1,
        ),
    )
    RULES: ClassVar[tuple[dict[str, str], ...]] = (
        NAME_RULE,
        rule(
            "!has(self.spec.aliases) || !(self.metadata.name in self.spec.aliases)",
            "spec.aliases must not repeat metadata.name; remove it, the name always works",
        ),
        rule(
            "!has(self.spec.engine) || self.spec.task == 'Embedding'"
            " || (!has(self.spec.engine.pooling) && !has(self.spec.engine.instructions))",
            "engine.pooling and engine.instructions are for task Embedding; remove them, or change "
            "task",
        ),
        rule(
            "!has(self.spec.model.adapters) || self.spec.task in ['Chat', 'Completion']",
            "model.adapters are for tasks Chat and Completion; remove them, or change task",
        ),
        rule(
            "!has(self.spec.serving) || !has(self.spec.serving.responseCache)"
            " || self.spec.task == 'Chat'",
            "serving.responseCache is for task Chat; remove it, or change task",
        ),
        rule(
            "!has(self.spec.rollout) || !has(self.spec.rollout.validation)"
            " || self.spec.task in ['Chat', 'Completion']"
            " || self.spec.rollout.validation.all(v, !has(v.expect))",
            "rollout.validation.expect is for tasks Chat and Completion; remove it, or change task",
        ),
    )

    api_version: Literal["ullage.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    spec: Annotated[ModelDeploymentSpec, Field(description="What is wanted.")]
    status: Annotated[
        ModelDeploymentStatus | None, Field(description="What is so; written by the operator.")
    ] = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may ask for, the resource's own first."""
        return (self.metadata.name, *(self.spec.aliases or ()))

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Every name by which a client may ask for an adapter."""
        adapters = self.spec.model.adapters or ()
        return tuple(adapter_name(n, a.name) for n in self.names for a in adapters)
