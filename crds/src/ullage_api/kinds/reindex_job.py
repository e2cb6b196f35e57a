"""ReindexJob: a collection is brought to its own spec while it is searched and written."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from ullage_api.kinds.base import NAME_RULE, KubeModel, Resource, rule, validations
from ullage_api.kinds.columns import Column
from ullage_api.kinds.memory import Priority
from ullage_api.kinds.reindex_settings import (
    CutoverType,
    OldCollection,
    RateSettings,
    ReindexMode,
    VerifySettings,
)
from ullage_api.kinds.reindex_status import ReindexJobStatus
from ullage_api.names import API_VERSION, MAX_NAME_LENGTH, REINDEX_FINALIZER, short_hash

DEFAULT_ROLLBACK_SECONDS: Final = 600
MAX_SECONDS: Final = 30 * 24 * 3600

FROZEN: Final = (
    "mode",
    "verify",
    "cutover",
    "rollbackSeconds",
    "oldCollection",
    "deadlineSeconds",
    "ttlSecondsAfterFinished",
)
"""Fields that cannot be changed once the job is there, besides `collection`."""
COLLECTION_MESSAGE: Final = (
    "collection cannot be changed; create another ReindexJob for the other collection"
)


def frozen_message(field: str) -> str:
    """Return what to tell whoever changes a field that cannot be changed."""
    return (
        f"{field} cannot be changed; delete this ReindexJob, which cancels it, and create another"
    )


def _frozen(field: str) -> dict[str, str]:
    # A bare comparison refuses every update of a resource that lacks the field.
    same = f"has(self.{field}) == has(oldSelf.{field})"
    equal = f"(!has(self.{field}) || self.{field} == oldSelf.{field})"
    return rule(f"{same} && {equal}", frozen_message(field))


def proposed_job(collection: str, generation: int) -> str:
    """Return the manifest, on one line, of a job that brings a collection to its spec of now."""
    suffix = f"-{generation}"
    name = collection[: MAX_NAME_LENGTH - len(suffix)] + suffix
    return (
        f"{{apiVersion: {API_VERSION}, kind: ReindexJob, metadata: {{name: {name}}}, "
        f"spec: {{collection: {collection}}}}}"
    )


class ReindexJobSpec(KubeModel):
    """How a collection is to get to what its own spec wants."""

    collection: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME_LENGTH,
            description=(
                "VectorCollection of the same namespace that is brought to its own spec; cannot "
                "be changed later."
            ),
            json_schema_extra=validations(rule("self == oldSelf", COLLECTION_MESSAGE)),
        ),
    ]
    mode: Annotated[
        ReindexMode | None,
        Field(
            description="Auto (if unset) takes the cheapest way; Copy always fills another "
            "collection, so that there is one to go back to."
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        Field(description="Which job goes first, Normal if unset; those that wait move up."),
    ] = None
    suspend: Annotated[
        bool | None,
        Field(description="Whether it pauses: what is written still reaches both collections."),
    ] = None
    cancel: Annotated[
        bool | None,
        Field(description="Whether it is given up: searches stay, or are again, where they were."),
    ] = None
    rate: Annotated[RateSettings | None, Field(description="How fast it may go.")] = None
    verify: Annotated[VerifySettings | None, Field(description="What the target must be like.")] = (
        None
    )
    cutover: Annotated[
        CutoverType | None,
        Field(
            description="Auto (if unset) switches searches as soon as the target is verified; "
            "Manual waits for approve."
        ),
    ] = None
    approve: Annotated[bool | None, Field(description="Whether a Manual cutover may be made.")] = (
        None
    )
    rollback_seconds: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SECONDS,
            description="How long after the switch the old collection is kept up to date, to go "
            f"back to at once; {DEFAULT_ROLLBACK_SECONDS} if unset.",
        ),
    ] = None
    rollback: Annotated[
        bool | None,
        Field(description="Whether to go back to the old collection, within rollbackSeconds."),
    ] = None
    old_collection: Annotated[
        OldCollection | None,
        Field(
            description="What becomes of the old collection's data after rollbackSeconds: Delete "
            "(if unset) or Retain."
        ),
    ] = None
    deadline_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SECONDS,
            description="How long it may take until the switch, from when it is created; after "
            "that it fails and changes nothing. No limit if unset.",
        ),
    ] = None
    ttl_seconds_after_finished: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SECONDS,
            description="How long the resource is kept once it is over; for good if unset.",
        ),
    ] = None


class ReindexJob(Resource):
    """Brings a collection to its own spec while it is searched and written."""

    PLURAL: ClassVar[str] = "reindexjobs"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("rxj",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("Collection", "string", ".spec.collection", "Collection that it reindexes."),
        Column("Plan", "string", ".status.plan", "The way it takes."),
        Column("Phase", "string", ".status.phase", "What it is doing."),
        Column("Progress", "string", ".status.progress", "How much of the copying is done."),
        Column("Rate", "integer", ".status.rate", "Points per second of late."),
        Column("Age", "date", ".metadata.creationTimestamp", "Time since it was created."),
        Column(
            "ETA", "integer", ".status.etaSeconds", "Seconds of copying that are left.", priority=1
        ),
        Column(
            "Reason",
            "string",
            '.status.conditions[?(@.type=="Complete")].reason',
            "Why it is where it is, in a word.",
            priority=1,
        ),
        Column(
            "Message",
            "string",
            '.status.conditions[?(@.type=="Complete")].message',
            "Why, in words and numbers.",
            priority=1,
        ),
    )
    RULES: ClassVar[tuple[dict[str, str], ...]] = (NAME_RULE,)

    api_version: Literal["ullage.dev/v1alpha1"] = API_VERSION
    kind: Literal["ReindexJob"] = "ReindexJob"
    spec: Annotated[
        ReindexJobSpec,
        Field(
            description="How the collection is to get to what its spec wants.",
            json_schema_extra=validations(*(_frozen(field) for field in FROZEN)),
        ),
    ]
    status: Annotated[
        ReindexJobStatus | None,
        Field(description="What is so, as the operator last observed it."),
    ] = None

    def identity(self, wanted: object) -> str:
        """Return what distinguishes this job where no API server gives uids.

        `wanted` is the collection's spec: with another one, the same manifest is another job. What
        merely steers a job is no part of it.
        """
        spec = self.spec.to_wire()
        kept = {name: spec[name] for name in ("collection", *FROZEN) if name in spec}
        return short_hash({"name": self.metadata.name, "job": kept, "wanted": wanted}, length=16)

    @property
    def is_deleted(self) -> bool:
        """Whether it is being deleted, which cancels it first."""
        return self.metadata.deletion_timestamp is not None

    @property
    def is_held(self) -> bool:
        """Whether it stays until it is over: only then is a pod told of it."""
        return REINDEX_FINALIZER in self.metadata.finalizers

    @property
    def is_over(self) -> bool:
        """Whether its status says that it is finished, well or not."""
        phase = self.status.phase if self.status is not None else None
        return phase is not None and phase.is_over
