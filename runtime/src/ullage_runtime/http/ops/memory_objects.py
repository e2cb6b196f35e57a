"""What a pod's memory looks like from outside: devices, models, and what was decided."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.rollout import SwapStep, Transition
from ullage_api.wire.pod_report import DeviceKind, ReportedDevice, ReportedModel
from ullage_runtime.core.budgets import left_beside_neighbours
from ullage_runtime.core.decisions import Decision, Rule
from ullage_runtime.http.auth import Key


class DeviceMemory(BaseModel):
    """One device's memory, in bytes."""

    id: str
    kind: DeviceKind
    name: str
    level: Annotated[
        MemoryLevel | None, Field(description="How full it is; null while it cannot be read.")
    ]
    total: int
    budget: Annotated[int, Field(description="What models may take of it.")]
    used: Annotated[int, Field(description="What anyone takes of it.")]
    own: Annotated[
        int | None,
        Field(description="What this pod's processes take of it; null where nobody can tell."),
    ]
    ledger: Annotated[int, Field(description="What models were promised or take.")]
    warm: Annotated[
        int, Field(description="Of that, what is kept of models that have left; loads may have it.")
    ]
    free: Annotated[int, Field(description="What a further model would be promised now.")]
    throttling: Annotated[
        list[str], Field(description="Why it is slower than it could be: heat, power, CPU quota.")
    ]
    stalled: Annotated[
        float | None,
        Field(description="Share of the last 10 s in which some process waited for memory."),
    ]


class MemoryStats(BaseModel):
    """The pod's memory."""

    object: Literal["memory.stats"] = "memory.stats"
    pod: str
    level: Annotated[
        MemoryLevel | None, Field(description="Of the memory that models are loaded into.")
    ]
    devices: list[DeviceMemory]


class ModelMemory(BaseModel):
    """One model's memory, in bytes."""

    id: str
    residency: Residency
    reason: Annotated[Reason, Field(description="Why it is where it is.")]
    message: Annotated[str, Field(description="The same in words and numbers.")]
    final: Annotated[bool, Field(description="Whether only a change of the spec can mend it.")]
    revision: Annotated[str | None, Field(description="The one that answers.")]
    transition: Annotated[
        Transition | None, Field(description="Where it stands on the way to the newest revision.")
    ]
    swap: Annotated[SwapStep | None, Field(description="What is being done on that way.")]
    device: str | None
    estimated: Annotated[int | None, Field(description="What it was expected to take.")]
    resident: Annotated[int | None, Field(description="What it takes, as measured.")]
    host: Annotated[
        int, Field(description="What host memory keeps of it since it left, for its return.")
    ]
    load_seconds: Annotated[
        float | None, Field(description="How long its last load took that was not from there.")
    ]
    promote_seconds: Annotated[
        float | None, Field(description="How long its last load took, if that was from there.")
    ]
    fetched: Annotated[int | None, Field(description="Of its file, while it is fetched.")]
    fetch_total: int | None
    requests_running: int
    requests_waiting: int
    generated_tokens: Annotated[
        int, Field(description="Since the pod began; over time, tokens per second.")
    ]


class MemoryDecision(BaseModel):
    """One model that left memory, or was not let in."""

    id: int
    time: Annotated[datetime, Field(description="When, in UTC.")]
    kind: Literal["eviction", "refusal"]
    rule: Rule
    model: str
    bytes: Annotated[int, Field(description="What it gave back, or needs.")]
    beneficiary: Annotated[
        str | None, Field(alias="for", description="The model that it made room for.")
    ]
    message: Annotated[str, Field(description="Why, in words and numbers.")]


class MemoryDecisionList(BaseModel):
    """A page of decisions, the newest first."""

    object: Literal["list"] = "list"
    data: list[MemoryDecision]
    has_more: Annotated[bool, Field(description="Whether older ones are kept.")]
    last_id: Annotated[int | None, Field(description="Where the next page goes on: its `after`.")]


class ModelMemoryList(BaseModel):
    """Every model that the caller may use."""

    object: Literal["list"] = "list"
    data: list[ModelMemory]


def may_see(key: Key | None, model: str) -> bool:
    """Whether a caller may know of a model; one without a key is the operator."""
    return key is None or key.may_use(model)


def decision_memory(decision: Decision, key: Key | None) -> MemoryDecision:
    """Return a decision as the caller may see it: others' models have no names, even in words."""
    other = decision.beneficiary
    hidden = other is not None and not may_see(key, other)
    message = decision.message.replace(repr(other), "another model") if hidden else decision.message
    return MemoryDecision.model_validate(
        {
            "id": decision.id,
            "time": datetime.fromtimestamp(decision.time, UTC),
            "kind": "refusal" if decision.is_refusal else "eviction",
            "rule": decision.rule,
            "model": decision.model,
            "bytes": decision.bytes,
            "for": None if hidden else other,
            "message": message,
        }
    )


def device_memory(device: ReportedDevice) -> DeviceMemory:
    """Return a device as it is shown."""
    left = left_beside_neighbours(
        total=device.total_bytes,
        used=device.used_bytes,
        own=device.own_bytes,
        ledger=device.ledger_bytes,
    )
    return DeviceMemory(
        id=device.id,
        kind=device.kind,
        name=device.name,
        level=device.level,
        total=device.total_bytes,
        budget=device.budget_bytes,
        used=device.used_bytes,
        own=device.own_bytes,
        ledger=device.ledger_bytes,
        warm=device.warm_bytes,
        free=max(0, min(device.budget_bytes, left) - device.ledger_bytes),
        throttling=list(device.throttling),
        stalled=device.stalled,
    )


def model_memory(model: ReportedModel) -> ModelMemory:
    """Return a model as it is shown."""
    shown = model.active or model.target
    return ModelMemory(
        id=model.name,
        residency=model.residency,
        reason=model.reason,
        message=model.message,
        final=model.final,
        revision=model.active.revision if model.active else None,
        transition=model.transition,
        swap=model.swap.step if model.swap else None,
        device=model.active.device if model.active else None,
        estimated=shown.estimated_bytes if shown else None,
        resident=model.active.resident_bytes if model.active else None,
        host=model.host_bytes,
        load_seconds=model.active.load_seconds if model.active else None,
        promote_seconds=model.active.promote_seconds if model.active else None,
        fetched=model.fetched_bytes,
        fetch_total=model.fetch_total_bytes,
        requests_running=model.requests_running,
        requests_waiting=model.requests_waiting,
        generated_tokens=model.generated_tokens,
    )
