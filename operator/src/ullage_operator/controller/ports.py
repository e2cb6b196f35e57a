"""Ports: all that the controller wants of the world outside, as protocols."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.controller.keys import Key
from ullage_operator.reconcile.observed import Owner, ProfileView, ReportView
from ullage_operator.reconcile.plan import Delete, EventNote, Manifest

RawObject = dict[str, Any]


class KubeClient(Protocol):
    """The handful of verbs by which the operator speaks to the API server.

    Every call has a deadline and is retried a few times when the server is busy; what is left are
    the errors of `controller.errors`.
    """

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> RawObject | None:
        """Return an object, or None when there is none."""
        ...

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: str = ""
    ) -> Sequence[RawObject]:
        """Return all objects of a kind in a namespace that match a label selector."""
        ...

    async def create(self, manifest: Manifest) -> RawObject:
        """Create an object; raises NameTakenError if one of that name exists."""
        ...

    async def apply(self, manifest: Manifest) -> RawObject:
        """Apply a manifest on the server's side; its uid, if it has one, must be the object's."""
        ...

    async def apply_status(self, manifest: Manifest) -> RawObject:
        """Apply an object's status; the manifest carries the object's uid."""
        ...

    async def delete(self, namespace: str, target: Delete) -> None:
        """Delete an object if it still is the one that was seen."""
        ...


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """Where a pod's `/internal` surface is."""

    pod: str
    uid: str
    address: str
    port: int


class PodReports(Protocol):
    """What the pools' pods say of themselves, and the way to tell them what is wanted."""

    def follow(self, pool: Key, endpoints: Sequence[PodEndpoint], token: str) -> None:
        """Ask exactly these pods of a pool from now on; ends the asking of others."""
        ...

    def forget(self, pool: Key) -> None:
        """Ask no pod of a pool any more."""
        ...

    def latest(self, pool: Key) -> tuple[ReportView, ...]:
        """Return the last that was heard of each pod that is asked."""
        ...

    async def push(self, pool: Key, pods: Sequence[str], document: PoolDesired) -> None:
        """Send the document to pods; what fails is logged, counted, and left to the next try."""
        ...


class Profiles(Protocol):
    """The pool profiles, as the platform's ConfigMap has them."""

    def view(self, pool: str) -> ProfileView:
        """Return what is known of one pool's profile."""
        ...


class Clock(Protocol):
    """Time."""

    def now(self) -> datetime:
        """Return the moment, in UTC."""
        ...


class EventRecorder(Protocol):
    """Kubernetes Events."""

    async def record(self, resource: Owner, note: EventNote) -> None:
        """Record an Event about a resource; never raises, and says nothing twice in a row."""
        ...


class Metrics(Protocol):
    """What is counted."""

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one reconcile."""
        ...

    def status_written(self, kind: str) -> None:
        """Count one write of a status."""
        ...
