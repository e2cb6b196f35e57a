"""Plans: what a reconcile will do, with its reasons, before anything is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.reconcile.observed import Owner, PoolNote

Manifest = Mapping[str, Any]


class Verb(StrEnum):
    """How a manifest reaches the API server."""

    CREATE = "Create"
    """POST: an object of that name which is not ours makes it fail, and is left alone."""
    APPLY = "Apply"
    """Server-side apply onto the very object we saw: the manifest carries its uid."""
    UPSERT = "Upsert"
    """Server-side apply, whether it exists or not; only for names that nobody else can guess, or
    for objects that could not be changed into ours."""


@dataclass(frozen=True, slots=True)
class Apply:
    """One object to be written."""

    verb: Verb
    manifest: Manifest
    why: str

    @property
    def object_name(self) -> str:
        """The object's kind and name, for people."""
        return f"{self.manifest['kind']} {self.manifest['metadata']['name']}"


def finalizers(resource: Owner, names: Sequence[str], why: str) -> Apply:
    """Return how a resource of a user gets those of our finalizers, and no others of ours."""
    metadata = resource.metadata
    manifest = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "finalizers": list(names),
        },
    }
    return Apply(Verb.APPLY, manifest, why)


@dataclass(frozen=True, slots=True)
class Delete:
    """One object to be deleted, if it still is the one we saw."""

    api_version: str
    kind: str
    name: str
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class EventNote:
    """A Kubernetes Event about the resource: one per transition."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Push:
    """A desired document and the pods that have not acknowledged it."""

    document: PoolDesired
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that one reconcile will do, in order: deletes, applies, push, status, events."""

    applies: tuple[Apply, ...] = ()
    deletes: tuple[Delete, ...] = ()
    push: Push | None = None
    status: Manifest | None = None
    """The whole status to be written; None when what is there already says so."""
    events: tuple[EventNote, ...] = ()
    note: PoolNote | None = None
    """What the pool's members must tell their users."""
    document: PoolDesired | None = None
    """The pool's desired document, once the plan is carried out."""
    requeue_after: float | None = None
    concerns_pool: bool = False
    """Whether what the pods are asked for may have to change."""
    why: tuple[str, ...] = ()

    @property
    def around_push(self) -> tuple[tuple[Apply, ...], tuple[Apply, ...]]:
        """What is written before pods are told of the document, and what they need not wait for.

        A document that they are told must be the mounted one, which a restarted pod begins with.
        """
        places = [i for i, a in enumerate(self.applies) if a.manifest["kind"] == "ConfigMap"]
        after = max(places, default=-1) + 1
        return self.applies[:after], self.applies[after:]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write anywhere."""
        return not (self.applies or self.deletes or self.push or self.status or self.events)
