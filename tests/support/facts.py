"""Facts for the operator's pure core: resources, pods, reports, and a cluster that plans change."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ullage_api.conditions import Condition, Reason, find
from ullage_api.desired import desired_revision
from ullage_api.kinds.collection_status import VectorCollectionStatus
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import ModelDeploymentStatus, Residency
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.kinds.reindex_status import ReindexJobStatus, ReindexPoints
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.names import (
    HOLDS_LABEL_PREFIX,
    REINDEX_LABEL,
    pod_name,
    pool_object_name,
    revision_name,
)
from ullage_api.profile import PoolProfile
from ullage_api.wire.pod_report import (
    CollectionState,
    PodReport,
    ReportedCollection,
    ReportedModel,
    ReportedReindex,
    ReportedRevision,
)
from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.controller import reading
from ullage_operator.reconcile.collection import refusals
from ullage_operator.reconcile.manifests.common import MODEL_LABEL
from ullage_operator.reconcile.observed import (
    Child,
    CollectionObserved,
    ModelObserved,
    OperatorConfig,
    PodView,
    PoolFacts,
    PoolNote,
    PoolObserved,
    PoolRecord,
    ProfileView,
    ReindexObserved,
    ReportView,
    RevisionRecord,
    WorkerView,
)
from ullage_operator.reconcile.plan import Plan
from ullage_operator.reconcile.pool import alias_losers
from ullage_operator.reconcile.reindex import rolled_back
from ullage_operator.reconcile.tokens import pool_token

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NAMESPACE = "team-a"
POOL = "default"
MIB = 1 << 20


def profile(**fields: Any) -> PoolProfile:
    return PoolProfile.model_validate({"image": "ullage-runtime:test", **fields})


def known(given: PoolProfile | None = None) -> ProfileView:
    return ProfileView(given or profile(), exists=True, known=(POOL,))


def resource(name: str = "chat", *, second: int = 0, **spec: Any) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-{name}",
                "generation": 1,
                "creationTimestamp": f"2026-11-20T10:00:{second:02d}Z",
            },
            "spec": {
                "pool": POOL,
                "task": "Chat",
                "model": {"uri": f"file:{name}.gguf"},
                **spec,
            },
        }
    )


def embedder(name: str = "embed", **spec: Any) -> ModelDeployment:
    return resource(name, **{"task": "Embedding", **spec})


def collection(name: str = "notes", *, deleting: bool = False, **spec: Any) -> VectorCollection:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": "2026-11-20T10:00:00Z",
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-20T11:00:00Z"
    given = {"pool": POOL, "embedding": {"modelDeployment": "embed"}, **spec}
    return VectorCollection.model_validate({"metadata": metadata, "spec": given})


def opened(given: VectorCollection, **fields: Any) -> ReportedCollection:
    """Return what a pod says of a collection that answers."""
    return ReportedCollection(
        **{
            "name": given.metadata.name,
            "uid": given.metadata.uid,
            "generation": given.metadata.generation,
            "state": CollectionState.READY,
            "physical": f"{given.metadata.name}-1",
            "epoch": 1,
            "model": given.spec.embedding.model_deployment,
            "model_revision": "r1",
            "dimensions": 384,
            "points": 12,
            "documents": 3,
            "indexed_vectors": 0,
            "is_indexed": True,
            **fields,
        }
    )


def reindex(name: str = "to-new", *, deleting: bool = False, **spec: Any) -> ReindexJob:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": "2026-11-20T10:00:00Z",
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-20T11:00:00Z"
    given = {"collection": "notes", **spec}
    return ReindexJob.model_validate({"metadata": metadata, "spec": given})


def reindexing(given: ReindexJob, phase: ReindexPhase, **fields: Any) -> ReportedReindex:
    """Return what a pod says of a job that embeds points again."""
    return ReportedReindex(
        **{
            "name": given.metadata.name,
            "uid": given.metadata.uid,
            "generation": given.metadata.generation,
            "collection": given.spec.collection,
            "phase": phase,
            "reason": Reason.REINDEXING,
            "message": "42 of 100 points are copied",
            "plan": ReindexPlan.REEMBED,
            "plan_reason": "the spec wants another model",
            "points": ReindexPoints(total=100, copied=42),
            "rate": 800,
            "eta_seconds": 1,
            **fields,
        }
    )


def changed(given: ModelDeployment, *, generation: int | None = None, **spec: Any) -> Any:
    raw = given.to_wire()
    raw["spec"] |= spec
    raw["metadata"]["generation"] = generation or raw["metadata"]["generation"] + 1
    return ModelDeployment.model_validate(raw)


def with_status(given: ModelDeployment, status: Any) -> ModelDeployment:
    return given.model_copy(update={"status": ModelDeploymentStatus.model_validate(status)})


def pod(ordinal: int = 0, **fields: Any) -> PodView:
    name = pod_name(POOL, ordinal)
    given = {"uid": f"uid-{name}", "ip": f"10.0.0.{ordinal + 1}", "ready": True, **fields}
    return PodView(name=name, ordinal=ordinal, **given)


def revision(name: str = "r1", **fields: Any) -> ReportedRevision:
    given = {
        "revision": name,
        "uri": "file:chat.gguf",
        "sha256": "a" * 64,
        "file_bytes": 20 * MIB,
        "engine": "LlamaCpp",
        "context_length": 2048,
        "estimated_bytes": 24 * MIB,
        "resident_bytes": 25 * MIB,
        **fields,
    }
    return ReportedRevision(**given)


def told(given: ModelDeployment) -> ReportedRevision:
    """Return what a pod says of the revision that a spec asks for, by the name it really has."""
    want = desired_revision(given)
    digest = f"{want.uri.encode().hex():0<64}"[:64]
    return revision(revision_name(digest, want.settings), uri=want.uri, sha256=digest)


def serving(given: ModelDeployment, **fields: Any) -> ReportedModel:
    now = revision(uri=given.spec.model.uri)
    return ReportedModel(
        **{
            "name": given.metadata.name,
            "uid": given.metadata.uid,
            "generation": given.metadata.generation,
            "residency": Residency.RESIDENT,
            "reason": Reason.SERVING,
            "weights_ready": True,
            "active": now,
            "target": now,
            **fields,
        }
    )


def coming(given: ModelDeployment, reason: Reason, message: str = "", **fields: Any) -> Any:
    return serving(
        given,
        **{
            "residency": Residency.DISK,
            "reason": reason,
            "message": message,
            "active": None,
            "target": None,
            "weights_ready": False,
            **fields,
        },
    )


def report(
    *models: ReportedModel, ordinal: int = 0, document: PoolDesired | None = None, **fields: Any
) -> PodReport:
    given = {
        "acknowledged": document.sequence if document else 0,
        "acknowledged_hash": document.hash if document else "",
        **fields,
    }
    return PodReport(
        pod=pod_name(POOL, ordinal),
        ordinal=ordinal,
        boot_id="boot",
        sequence=1,
        models=models,
        **given,
    )


def heard(given: PodReport, age: float = 1.0) -> ReportView:
    return ReportView(given.pod, given, age, 100.0)


def silent(ordinal: int = 0, awaited: float = 100.0) -> ReportView:
    return ReportView(pod_name(POOL, ordinal), awaited_seconds=awaited)


@dataclass
class World:
    """A cluster just real enough to carry out plans: what the API server would then hold."""

    members: dict[str, ModelDeployment] = field(default_factory=dict)
    collections: dict[str, VectorCollection] = field(default_factory=dict)
    reindexes: dict[str, ReindexJob] = field(default_factory=dict)
    workers: dict[str, WorkerView] = field(default_factory=dict)
    volume: bool = False
    written: dict[str, datetime] = field(default_factory=dict)
    profile: ProfileView = field(default_factory=known)
    record: PoolRecord | None = None
    children: dict[tuple[str, str], Child] = field(default_factory=dict)
    services: dict[str, Child] = field(default_factory=dict)
    pods: dict[int, PodView] = field(default_factory=dict)
    reports: dict[int, ReportView] = field(default_factory=dict)
    objects: dict[tuple[str, str], Any] = field(default_factory=dict)
    revisions: dict[str, RevisionRecord] = field(default_factory=dict)
    note: PoolNote | None = None
    taken: tuple[str, ...] = ()
    now: datetime = NOW
    versions: int = 0

    def add(self, *members: ModelDeployment) -> "World":
        for member in members:
            self.members[member.metadata.name] = member
        return self

    def add_collections(self, *collections: VectorCollection) -> "World":
        for each in collections:
            self.collections[each.metadata.name] = each
        return self

    def add_reindexes(self, *jobs: ReindexJob) -> "World":
        for each in jobs:
            self.reindexes[each.metadata.name] = each
        return self

    def pool(self) -> PoolObserved:
        return PoolObserved(
            namespace=NAMESPACE,
            pool=POOL,
            now=self.now,
            config=OperatorConfig("ullage-system"),
            token=pool_token(b"k" * 32, NAMESPACE, POOL),
            profile=self.profile,
            members=tuple(self.members.values()),
            collections=tuple(self.collections.values()),
            reindexes=tuple(
                r for r in self.reindexes.values() if r.spec.collection in self.collections
            ),
            volume=self.volume,
            record=self.record,
            children=tuple(self.children.values()),
            pods=tuple(self.pods[o] for o in sorted(self.pods)),
            reports=tuple(self.reports[o] for o in sorted(self.reports)),
            revisions=tuple(self.revisions.values()),
        )

    def model(self, name: str = "chat") -> ModelObserved:
        return ModelObserved(
            resource=self.members[name],
            now=self.now,
            profile=self.profile,
            pool=self.facts(),
            service=self.services.get(name),
            reports=tuple(self.reports[o] for o in sorted(self.reports)),
            revisions=tuple(self.revisions.values()),
            taken=self.taken,
        )

    def collection(self, name: str = "notes") -> CollectionObserved:
        return CollectionObserved(
            resource=self.collections[name],
            now=self.now,
            profile=self.profile,
            pool=self.facts(),
            reports=tuple(self.reports[o] for o in sorted(self.reports)),
            written=self.written.get(name),
        )

    def reindex(self, name: str = "to-new") -> ReindexObserved:
        job = self.reindexes[name]
        return ReindexObserved(
            resource=job,
            now=self.now,
            collection=self.collections.get(job.spec.collection),
            known=tuple(sorted(self.collections)),
            pool=self.facts(),
            secret_name=pool_token(b"k" * 32, NAMESPACE, POOL).secret_name,
            reports=tuple(self.reports[o] for o in sorted(self.reports)),
            worker=self.workers.get(name),
            written=self.written.get(name),
        )

    def facts(self) -> PoolFacts:
        record = self.record
        return PoolFacts(
            desired=record.desired if record is not None else None,
            profile=record.profile if record is not None else None,
            pods=tuple(self.pods[o] for o in sorted(self.pods)),
            refusals=alias_losers(tuple(self.members.values())),
            collection_refusals=refusals(self.pool()),
            rolled_back=rolled_back(self.reindexes.values()),
            note=self.note,
        )

    @property
    def desired(self) -> PoolDesired:
        assert self.record is not None
        assert self.record.desired is not None
        return self.record.desired

    @property
    def replicas(self) -> int:
        stateful_set = self.objects["StatefulSet", pool_object_name(POOL)]
        return int(stateful_set["spec"]["replicas"])

    def carry_out(self, plan: Plan, name: str = "") -> None:
        """Do what a plan says: for the pool, or for the named model or collection."""
        for delete in plan.deletes:
            self.workers = {n: w for n, w in self.workers.items() if w.child.name != delete.name}
            if delete.kind == "ReindexJob":
                del self.reindexes[delete.name]
            self.children.pop((delete.kind, delete.name), None)
            self.revisions.pop(delete.name, None)
        for write in plan.applies:
            self._write(json.loads(json.dumps(write.manifest)))
        if plan.push is not None:
            for pod_named in plan.push.pods:
                self._acknowledge(pod_named, plan.push.document)
        if name in self.collections and plan.status is not None:
            status = VectorCollectionStatus.model_validate(plan.status)
            self.collections[name] = self.collections[name].model_copy(update={"status": status})
            self.written[name] = self.now
        elif name in self.reindexes and plan.status is not None:
            done = ReindexJobStatus.model_validate(plan.status)
            self.reindexes[name] = self.reindexes[name].model_copy(update={"status": done})
            self.written[name] = self.now
        elif name and plan.status is not None:
            self.members[name] = with_status(self.members[name], plan.status)
        if not name:
            self.note = plan.note

    def _write(self, manifest: Any) -> None:
        kind, metadata = manifest["kind"], manifest["metadata"]
        if kind == "VectorCollection":
            old = self.collections[metadata["name"]]
            update = {"finalizers": metadata["finalizers"]}
            self.collections[metadata["name"]] = old.model_copy(
                update={"metadata": old.metadata.model_copy(update=update)}
            )
            return
        if kind == "ReindexJob":
            self._hold(metadata)
            return
        key = (kind, metadata["name"])
        if kind == "Pod":
            ordinal = int(metadata["name"].rpartition("-")[2])
            holds = frozenset(k.removeprefix(HOLDS_LABEL_PREFIX) for k in metadata["labels"])
            self.pods[ordinal] = replace(self.pods[ordinal], holds=holds)
            return
        self.versions += 1
        metadata.setdefault("uid", f"uid-{kind}-{metadata['name']}")
        metadata["resourceVersion"] = str(self.versions)
        self.objects[key] = manifest
        child = reading.child(manifest, manifest["apiVersion"], kind)
        if kind == "ControllerRevision":
            self.revisions[metadata["name"]] = reading.revision_record(manifest)
        elif kind == "ConfigMap":
            self.record = reading.pool_record(manifest)
        elif kind == "Job":
            self.workers[metadata["labels"][REINDEX_LABEL]] = WorkerView(child)
        elif kind == "PersistentVolumeClaim":
            self.volume = True
        elif MODEL_LABEL in metadata["labels"]:
            self.services[metadata["labels"][MODEL_LABEL]] = child
        elif kind != "Secret":
            self.children[key] = child

    def _hold(self, metadata: Any) -> None:
        """Set a job's finalizers; one that is being deleted goes with the last."""
        old = self.reindexes[metadata["name"]]
        if old.is_deleted and not metadata["finalizers"]:
            del self.reindexes[metadata["name"]]
            return
        update = {"finalizers": metadata["finalizers"]}
        self.reindexes[metadata["name"]] = old.model_copy(
            update={"metadata": old.metadata.model_copy(update=update)}
        )

    def _acknowledge(self, pod_named: str, document: PoolDesired) -> None:
        for ordinal, view in self.reports.items():
            if view.pod == pod_named and view.report is not None:
                update = {
                    "acknowledged": document.sequence,
                    "acknowledged_hash": document.hash,
                }
                self.reports[ordinal] = replace(view, report=view.report.model_copy(update=update))


def condition(plan_or_status: Any, kind: str) -> Condition:
    status = plan_or_status.status if isinstance(plan_or_status, Plan) else plan_or_status
    parsed = ModelDeploymentStatus.model_validate(status)
    found = find(parsed.conditions or (), kind)
    assert found is not None
    return found
