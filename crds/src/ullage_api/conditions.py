"""Conditions: their types, the closed set of reasons, and how one observation follows another."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from ullage_api.kinds.base import KubeModel

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """What a condition speaks of."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    WEIGHTS_READY = "WeightsReady"
    PROGRESSING = "Progressing"
    MEMORY_PRESSURE = "MemoryPressure"
    """True is bad: a pod that holds the model is short of memory."""
    IN_SYNC = "InSync"
    INDEXED = "Indexed"
    COMPLETE = "Complete"
    FAILED = "Failed"
    """True is bad: a reindex job is over, and its collection is as it was before."""
    SUSPENDED = "Suspended"
    VERIFIED = "Verified"
    SWITCHED = "Switched"


class Reason(StrEnum):
    """Why a condition has its status; the set is closed, so that alerts may rely on it."""

    ACCEPTED = "Accepted"
    """The spec is valid and its pool exists."""
    UNKNOWN_POOL = "UnknownPool"
    """No profile of that name; the message lists the known ones."""
    PROFILE_MISSING = "ProfileMissing"
    """The profile vanished or broke; the pool runs on the last good one."""
    NAME_TAKEN = "NameTaken"
    """An object of the needed name exists and is not ours."""
    ALIAS_TAKEN = "AliasTaken"
    """Another model of the pool answers to that name or alias."""
    POOL_FULL = "PoolFull"
    """The pool's desired document would exceed what a ConfigMap holds."""
    PENDING = "Pending"
    """The operator has not looked yet, or no pod has reported yet."""
    WAITING_FOR_PODS = "WaitingForPods"
    """The pool's pods are not up yet."""
    FETCHING = "Fetching"
    """The weights are being fetched."""
    FETCHED = "Fetched"
    """The weights are in the cache and their digest is known."""
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    """The source cannot be read: not found, forbidden, unreachable, or refused by the profile."""
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    """The bytes are not those the spec's sha256 names."""
    INVALID_MODEL = "InvalidModel"
    """The file is not a model the engine can load."""
    WILL_NEVER_FIT = "WillNeverFit"
    """The model needs more memory than the pool's whole budget."""
    WAITING_FOR_MEMORY = "WaitingForMemory"
    """The model fits once others leave."""
    MEMORY_AVAILABLE = "MemoryAvailable"
    """The pods that hold the model have memory left."""
    MEMORY_HIGH = "MemoryHigh"
    """A pod that holds the model has little memory left."""
    MEMORY_CRITICAL = "MemoryCritical"
    """A pod that holds the model has next to no memory left."""
    LOADING = "Loading"
    """The engine is loading the model."""
    SERVING = "Serving"
    """The model answers."""
    DEVICE_FALLBACK = "DeviceFallback"
    """The model answers, from a CPU although it should be on a GPU."""
    IDLE = "Idle"
    """The model has shown that it serves, left memory, and comes back with the next request."""
    WARM = "Warm"
    """The same, and host memory keeps it for a quick return."""
    SUSPENDED = "Suspended"
    """The spec says suspend, or zero replicas."""
    LOAD_FAILED = "LoadFailed"
    """The engine could not load the model; the message has its last words."""
    VALIDATION_FAILED = "ValidationFailed"
    """The new revision did not answer as `rollout.validation` wants it, or its vectors have another
    length than those of the one before."""
    EMBEDDING_IN_USE = "EmbeddingInUse"
    """The new revision's vectors are not those that collections have of the one before."""
    SWAP_TOO_LONG = "SwapTooLong"
    """Requests would be held for longer than `serving.holdSeconds` allows."""
    CRASH_LOOPING = "CrashLooping"
    """The engine's process keeps dying; restarts back off."""
    REPORTS_MISSING = "ReportsMissing"
    """The pool's pods have not reported for a while."""
    ROLLING_OUT = "RollingOut"
    """Some, not all, replicas serve the target, or it answers some of the requests."""
    UP_TO_DATE = "UpToDate"
    """Every replica serves the target."""
    ROLLED_BACK = "RolledBack"
    """An earlier revision answers instead of the target: somebody, or the pods, went back to it."""
    UNKNOWN_REVISION = "UnknownRevision"
    """The revision to roll back to is none of those remembered; the message lists them."""
    POOL_HAS_REPLICAS = "PoolHasReplicas"
    """The pool may have several pods; one that holds collections has one."""
    UNKNOWN_MODEL = "UnknownModel"
    """The pool has no model of that name that embeds; the message lists those it has."""
    OPENING = "Opening"
    """The collection is being opened, or waits for its model to say how long vectors are."""
    STORE_UNAVAILABLE = "StoreUnavailable"
    """The store, or the volume it is on, cannot be used; the message has its words."""
    IN_SYNC = "InSync"
    """The collection is built as the spec wants it."""
    NEEDS_REINDEX = "NeedsReindex"
    """Only a reindex brings about what the spec wants; until then it serves what it has."""
    INDEXING = "Indexing"
    """The store is building the index; what is not in it yet is compared one by one."""
    INDEXED = "Indexed"
    """The store has nothing left to build."""
    DELETING = "Deleting"
    """The data is being deleted, as `deletionPolicy` asks."""
    UNKNOWN_COLLECTION = "UnknownCollection"
    """There is no VectorCollection of that name; the message lists those there are."""
    ALREADY_CURRENT = "AlreadyCurrent"
    """The collection is as its spec wants it: there was nothing to do."""
    TARGET_BUSY = "TargetBusy"
    """Another job goes first; the message has its name."""
    NO_TEXT = "NoText"
    """Points without a text cannot be embedded anew; the message has their number."""
    NO_ROOM = "NoRoom"
    """The volume, or memory, has no room for a second collection; the message has the bytes."""
    REINDEXING = "Reindexing"
    """A job brings the collection to its spec; the message says how far it is."""
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    """The new collection is verified, and `cutover` is Manual: `approve` switches to it."""
    SOAKING = "Soaking"
    """Searches use the new collection, and `rollback` would bring the old one back."""
    VERIFICATION_FAILED = "VerificationFailed"
    """The new collection is not what it should be; the message says what differs."""
    TOO_MANY_FAILURES = "TooManyFailures"
    """More points could not be copied than may be left out; the message has the first reasons."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The switch did not come within `deadlineSeconds`."""
    CANCELLED = "Cancelled"
    """The job was given up as somebody wished; the collection is as it was before."""
    SUCCEEDED = "Succeeded"
    """The collection is as its spec wanted it."""
    VERIFIED = "Verified"
    """The new collection passed every gate."""
    SWITCHED = "Switched"
    """Searches use the new collection."""
    WORKER_MISSING = "WorkerMissing"
    """The job's worker cannot run; the message says why, and nothing that is done is lost."""


class Condition(KubeModel):
    """One observation of a resource's state."""

    type: Annotated[str, Field(max_length=64, description="What the condition speaks of.")]
    status: Annotated[ConditionStatus, Field(description="True, False or Unknown.")]
    reason: Annotated[
        str, Field(min_length=1, max_length=64, description="Why, as one CamelCase word.")
    ]
    message: Annotated[
        str, Field(max_length=2048, description="Why, in words and numbers, for people.")
    ]
    observed_generation: Annotated[
        int, Field(ge=0, description="The generation of the spec this was observed for.")
    ]
    last_transition_time: Annotated[
        str,
        Field(
            description="When the status last changed, in UTC.",
            json_schema_extra={"format": "date-time"},
        ),
    ]


Conditions = Annotated[
    list[Condition] | None,
    Field(
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    ),
]
"""The conditions of a resource's status."""


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, or None."""
    return next((c for c in conditions if c.type == kind), None)


def changed(
    before: Iterable[Condition], after: Iterable[Condition]
) -> Iterator[tuple[Condition | None, Condition]]:
    """Yield what has another status or reason than before, beside what it was, or None if new."""
    known = tuple(before)
    for condition in after:
        old = find(known, condition.type)
        if old is None or (old.status, old.reason) != (condition.status, condition.reason):
            yield old, condition


def merged(
    previous: Sequence[Condition], current: Sequence[Condition], *, now: str
) -> tuple[Condition, ...]:
    """Return `current` with the transition times that follow from `previous`.

    The time moves only when a status flips; a new reason or message alone does not move it.
    `now` is an RFC 3339 text in UTC; whatever time `current` carries is ignored.
    """
    result = []
    for condition in current:
        before = find(previous, condition.type)
        same = before is not None and before.status == condition.status
        time = before.last_transition_time if same and before is not None else now
        result.append(condition.model_copy(update={"last_transition_time": time}))
    return tuple(result)
