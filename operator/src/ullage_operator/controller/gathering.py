"""Gathering: the fresh look at the cluster from which a plan is decided."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog
from pydantic import ValidationError

from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import (
    API_VERSION,
    INTERNAL_PORT,
    MANAGED_BY,
    POOL_LABEL,
    model_service_name,
    pool_object_name,
    reindex_worker_name,
    volume_name,
)
from ullage_operator.controller import reading
from ullage_operator.controller.keys import Key
from ullage_operator.controller.ports import (
    Clock,
    KubeClient,
    PodEndpoint,
    PodReports,
    Profiles,
    RawObject,
)
from ullage_operator.reconcile.collection import is_wanted
from ullage_operator.reconcile.manifests import revisions
from ullage_operator.reconcile.manifests.common import MODEL_LABEL
from ullage_operator.reconcile.observed import (
    Child,
    CollectionObserved,
    ModelObserved,
    OperatorConfig,
    PodView,
    PoolFacts,
    PoolObserved,
    PoolRecord,
    ReindexObserved,
    RevisionRecord,
)
from ullage_operator.reconcile.tokens import pool_token

log = structlog.get_logger(__name__)

M = TypeVar("M", ModelDeployment, VectorCollection)
R = TypeVar("R", ModelDeployment, VectorCollection, ReindexJob)

CHILD_KINDS: Final = (
    ("v1", "ServiceAccount"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("apps/v1", "StatefulSet"),
)
"""Kinds of which a pool has objects; its ConfigMap is read apart, its Secret never."""


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Reads what plans depend on."""

    client: KubeClient
    reports: PodReports
    profiles: Profiles
    clock: Clock
    config: OperatorConfig
    master_key: bytes

    async def pool(self, key: Key) -> PoolObserved:
        """Return all that a pool's plan depends on, and follow its pods' reports from now on."""
        selector = f"{POOL_LABEL}={key.name},app.kubernetes.io/managed-by={MANAGED_BY}"
        async with asyncio.TaskGroup() as tasks:
            members = tasks.create_task(self._members(ModelDeployment, key))
            collections = tasks.create_task(self._members(VectorCollection, key))
            reindexes = tasks.create_task(self._all(ReindexJob, key.namespace))
            volume = tasks.create_task(self._has_volume(key.namespace, key.name))
            record = tasks.create_task(self._record(key.namespace, key.name))
            pods = tasks.create_task(self._pods(key.namespace, key.name))
            kept = tasks.create_task(self._revisions(key.namespace, f"{POOL_LABEL}={key.name}"))
            # Own objects only: an object that merely carries the pool's label is not ours.
            lists = [
                tasks.create_task(self._children(*kind, key.namespace, selector))
                for kind in CHILD_KINDS
            ]
        names = {c.metadata.name for c in collections.result()}
        token = pool_token(self.master_key, key.namespace, key.name)
        if any(m.metadata.deletion_timestamp is None for m in members.result()) or any(
            is_wanted(c) for c in collections.result()
        ):
            self.reports.follow(key, _endpoints(pods.result()), token.value)
        return PoolObserved(
            namespace=key.namespace,
            pool=key.name,
            now=self.clock.now(),
            config=self.config,
            token=token,
            profile=self.profiles.view(key.name),
            members=members.result(),
            collections=collections.result(),
            reindexes=tuple(r for r in reindexes.result() if r.spec.collection in names),
            volume=volume.result(),
            record=record.result(),
            children=tuple(child for task in lists for child in task.result()),
            pods=pods.result(),
            reports=self.reports.latest(key),
            revisions=kept.result(),
        )

    async def resource(self, kind: type[R], key: Key) -> R | None:
        """Return a resource as it is now, or None when there is none."""
        raw = await self.client.get(API_VERSION, kind.__name__, key.namespace, key.name)
        return _parsed(raw, kind) if raw is not None else None

    def collection(self, resource: VectorCollection, facts: PoolFacts) -> CollectionObserved:
        """Return all that a collection's plan depends on; the cluster's part is the pool's."""
        namespace, pool = resource.metadata.namespace, resource.spec.pool
        return CollectionObserved(
            resource=resource,
            now=self.clock.now(),
            profile=self.profiles.view(pool),
            pool=facts,
            reports=self.reports.latest(Key.pool(namespace, pool)),
        )

    async def reindex(
        self, resource: ReindexJob, collection: VectorCollection | None, facts: PoolFacts
    ) -> ReindexObserved:
        """Return all that a reindex job's plan depends on."""
        namespace, name = resource.metadata.namespace, reindex_worker_name(resource.metadata.uid)
        raw = await self.client.get("batch/v1", "Job", namespace, name)
        now = self.clock.now()
        observed = ReindexObserved(
            resource=resource,
            now=now,
            pool=facts,
            worker=reading.worker_view(raw, now) if raw is not None else None,
        )
        if collection is None:
            others = await self._all(VectorCollection, namespace)
            return replace(observed, known=tuple(sorted(c.metadata.name for c in others)))
        pool = collection.spec.pool
        return replace(
            observed,
            collection=collection,
            secret_name=pool_token(self.master_key, namespace, pool).secret_name,
            reports=self.reports.latest(Key.pool(namespace, pool)),
        )

    async def model(
        self, resource: ModelDeployment, facts: PoolFacts, taken: tuple[str, ...]
    ) -> ModelObserved:
        """Return all that a model's plan depends on; what its pool shares comes from the pool."""
        namespace, pool = resource.metadata.namespace, resource.spec.pool
        mine = f"{MODEL_LABEL}={resource.metadata.name}"
        return ModelObserved(
            resource=resource,
            now=self.clock.now(),
            profile=self.profiles.view(pool),
            pool=facts,
            service=await self._service(resource),
            reports=self.reports.latest(Key.pool(namespace, pool)),
            revisions=await self._revisions(namespace, mine),
            taken=taken,
        )

    async def _members(self, kind: type[M], pool: Key) -> tuple[M, ...]:
        found = await self._all(kind, pool.namespace)
        return tuple(m for m in found if m.spec.pool == pool.name)

    async def _all(self, kind: type[R], namespace: str) -> list[R]:
        raws = await self.client.list(API_VERSION, kind.__name__, namespace)
        return [parsed for raw in raws if (parsed := _parsed(raw, kind)) is not None]

    async def _has_volume(self, namespace: str, pool: str) -> bool:
        claim = await self.client.get("v1", "PersistentVolumeClaim", namespace, volume_name(pool))
        return claim is not None

    async def _record(self, namespace: str, pool: str) -> PoolRecord | None:
        name = pool_object_name(pool)
        raw = await self.client.get("v1", "ConfigMap", namespace, name)
        if raw is None or not _is_ours(raw, pool):
            return None
        return reading.pool_record(raw)

    async def _pods(self, namespace: str, pool: str) -> tuple[PodView, ...]:
        raws = await self.client.list("v1", "Pod", namespace, f"{POOL_LABEL}={pool}")
        now = self.clock.now()
        views = (reading.pod_view(raw, pool, now) for raw in raws)
        return tuple(sorted((v for v in views if v is not None), key=lambda v: v.ordinal))

    async def _children(
        self, api_version: str, kind: str, namespace: str, selector: str
    ) -> list[Child]:
        raws = await self.client.list(api_version, kind, namespace, selector)
        return [
            reading.child(raw, api_version, kind)
            for raw in raws
            if MODEL_LABEL not in (raw["metadata"].get("labels") or {})
        ]

    async def _revisions(self, namespace: str, selector: str) -> tuple[RevisionRecord, ...]:
        labels = f"{selector},app.kubernetes.io/component={revisions.COMPONENT}"
        raws = await self.client.list("apps/v1", "ControllerRevision", namespace, labels)
        return tuple(found for raw in raws if (found := _kept(raw)) is not None)

    async def _service(self, resource: ModelDeployment) -> Child | None:
        name = model_service_name(resource.metadata.name)
        raw = await self.client.get("v1", "Service", resource.metadata.namespace, name)
        if raw is None or not _is_ours(raw, resource.spec.pool):
            return None
        return reading.child(raw, "v1", "Service")


def _is_ours(raw: RawObject, pool: str) -> bool:
    labels = raw["metadata"].get("labels") or {}
    ours = labels.get("app.kubernetes.io/managed-by") == MANAGED_BY
    return ours and labels.get(POOL_LABEL) == pool


def _parsed(raw: RawObject, kind: type[R]) -> R | None:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # Written under another CRD than ours. It must not stop the others of its pool.
        log.exception(
            "resource unreadable",
            kind=kind.__name__,
            namespace=raw["metadata"].get("namespace"),
            name=raw["metadata"].get("name"),
            problems=error.error_count(),
        )
        return None


def _kept(raw: RawObject) -> RevisionRecord | None:
    try:
        return reading.revision_record(raw)
    except ValueError as error:
        metadata = raw["metadata"]
        log.warning(
            "revision unreadable",
            namespace=metadata["namespace"],
            name=metadata["name"],
            error=str(error),
        )
        return None


def _endpoints(pods: Sequence[PodView]) -> list[PodEndpoint]:
    return [
        PodEndpoint(pod.name, pod.uid, pod.ip, pod.internal_port or INTERNAL_PORT)
        for pod in pods
        if pod.ip is not None and not pod.deleting
    ]
