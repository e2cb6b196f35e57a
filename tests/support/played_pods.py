"""Pods where there is no kubelet: the runtime's real `/internal`, and statuses as kubelet writes.

Each pod gets a loopback address of its own, so that all of them listen on the port their template
names. Which models it reports, and how, the test decides; the HTTP is the runtime's own.
"""

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from e2e.cluster.cluster import Cluster
from tests.support.operators import PATIENCE, eventually
from tests.support.runtimes import settings_for
from ullage_api.conditions import Reason
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.reindex_phase import ReindexPhase, ReindexPlan
from ullage_api.names import INTERNAL_PORT, revision_name
from ullage_api.wire.pod_report import (
    CollectionState,
    PodReport,
    ReportedCollection,
    ReportedModel,
    ReportedReindex,
    ReportedRevision,
)
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredReindex,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.app import Runtime, running
from ullage_runtime.core.decisions import Decision
from ullage_runtime.core.domain import ModelCard
from ullage_runtime.core.errors import ModelNotFound
from ullage_runtime.models.ports import Lease
from ullage_runtime.retrieval.collections import Collections

T = TypeVar("T")

MIB = 1 << 20
_numbers = count(1)


class PlayedModels:
    """Models that are resident as soon as they are desired, unless the test says otherwise."""

    def __init__(self, pod: str) -> None:
        self.pod = pod
        self.ordinal = int(pod.rpartition("-")[2])
        self.overrides: dict[str, dict[str, Any]] = {}
        self.boot = f"boot-{next(_numbers)}"
        self.desired: PoolDesired | None = None
        self._sequence = 1
        self._change = asyncio.Event()

    async def apply(self, desired: PoolDesired) -> bool:
        if self.desired is not None and desired.sequence <= self.desired.sequence:
            return False
        self.desired = desired
        self.touch()
        return True

    def touch(self) -> None:
        """Have something new to report."""
        self._sequence += 1
        self._change.set()

    def say(self, model: str, **fields: Any) -> None:
        """Report a model otherwise than as resident from now on."""
        self.overrides[model] = fields
        self.touch()

    def find(self, name: str) -> DesiredModel:
        raise ModelNotFound(f"no model {name!r}")

    def is_local(self, model: DesiredModel) -> bool:
        return self.ordinal in model.ordinals

    def revision(self, model: DesiredModel) -> str | None:
        return None

    def lease(
        self,
        model: DesiredModel,
        *,
        tenant: str = "",
        priority: int = 0,
        beside: bool = False,
        until: float | None = None,
        background: bool = False,
    ) -> AbstractAsyncContextManager[Lease]:
        raise ModelNotFound(f"{model.name!r} is only played")

    def cards(self) -> Sequence[ModelCard]:
        return ()

    def decisions(self) -> Sequence[Decision]:
        return ()

    def revisions(self, name: str) -> Sequence[DesiredRevision]:
        return ()

    def models_changed_since(self, sequence: int) -> frozenset[str] | None:
        return None

    async def changed(self, after: int, timeout: float) -> PodReport:  # noqa: ASYNC109 - the port's
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._sequence <= after:
                    self._change.clear()
                    await self._change.wait()
        return self.report()

    async def close(self, drain_seconds: float) -> None:
        """Nothing was loaded."""

    async def sample(self) -> None:
        """There is nothing to measure."""

    def report(self) -> PodReport:
        desired = self.desired
        return PodReport(
            pod=self.pod,
            ordinal=self.ordinal,
            boot_id=self.boot,
            sequence=self._sequence,
            acknowledged=desired.sequence if desired else 0,
            acknowledged_hash=desired.hash if desired else "",
            level=MemoryLevel.LOW,
            models=tuple(self._entry(m) for m in desired.models) if desired else (),
            collections=tuple(self._collection(c) for c in desired.collections) if desired else (),
            reindexes=tuple(self._reindex(r) for r in desired.reindexes) if desired else (),
        )

    def _reindex(self, wanted: DesiredReindex) -> ReportedReindex:
        common = {"name": wanted.name, "uid": wanted.uid, "generation": wanted.generation}
        said = {
            "collection": wanted.spec.collection,
            "phase": ReindexPhase.COPYING,
            "reason": Reason.REINDEXING,
            "message": "42 of 100 points are copied",
            "plan": ReindexPlan.REEMBED,
            "plan_reason": "the spec wants another model",
            "points": {"total": 100, "copied": 42},
            "rate": 800,
            "eta_seconds": 1,
        }
        if wanted.spec.suspend:
            said |= {"phase": ReindexPhase.PAUSED, "reason": Reason.SUSPENDED}
        if wanted.spec.cancel or wanted.deleted:
            said |= {"phase": ReindexPhase.CANCELLED, "reason": Reason.CANCELLED}
        return ReportedReindex.model_validate(common | said | self.overrides.get(wanted.name, {}))

    def _collection(self, wanted: DesiredCollection) -> ReportedCollection:
        common = {"name": wanted.name, "uid": wanted.uid, "generation": wanted.generation}
        if wanted.dropped:
            return ReportedCollection.model_validate(common | {"state": CollectionState.DROPPED})
        opened = {
            "state": CollectionState.READY,
            "physical": f"{wanted.name}-1",
            "epoch": 1,
            "model": wanted.spec.embedding.model_deployment,
            "model_revision": "r1",
            "dimensions": 384,
            "points": 12,
            "documents": 3,
            "indexed_vectors": 0,
            "is_indexed": True,
        }
        return ReportedCollection.model_validate(
            common | opened | self.overrides.get(wanted.name, {})
        )

    def _entry(self, model: DesiredModel) -> ReportedModel:
        common = {"name": model.name, "uid": model.uid, "generation": model.generation}
        if model.suspended or self.ordinal not in model.ordinals:
            reason = Reason.SUSPENDED if model.suspended else Reason.PENDING
            return ReportedModel.model_validate(common | {"reason": reason, "weightsReady": True})
        revision = revision_of(model.target)
        resident = {
            "residency": Residency.RESIDENT,
            "reason": Reason.SERVING,
            "weights_ready": True,
            "active": revision,
            "target": revision,
        }
        return ReportedModel.model_validate(common | resident | self.overrides.get(model.name, {}))


class PlayedCollections(Collections):
    """Collections that are opened by the models' report alone."""

    def __init__(self) -> None:
        """Have nothing."""

    async def apply(self, wanted: Sequence[DesiredCollection]) -> None:
        """Open nothing."""


def revision_of(want: DesiredRevision) -> ReportedRevision:
    """Return what a pod says of a revision that it serves."""
    digest = want.sha256 or hashlib.sha256(want.uri.encode()).hexdigest()
    return ReportedRevision(
        revision=revision_name(digest, want.settings),
        uri=want.uri,
        sha256=digest,
        file_bytes=20 * MIB,
        engine="LlamaCpp",
        context_length=2048,
        device="CPU",
        estimated_bytes=24 * MIB,
        resident_bytes=25 * MIB,
    )


@dataclass
class PlayedPod:
    """A pod that runs."""

    name: str
    uid: str
    models: PlayedModels
    runtime: Runtime
    stack: AsyncExitStack


@dataclass
class Kubelet:
    """Runs the pods that the StatefulSet controller makes, when a test says so."""

    cluster: Cluster
    folder: Path
    pods: dict[tuple[str, str], PlayedPod] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the event loop that the pods live in."""
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every pod, and the event loop."""
        for key in list(self.pods):
            self.kill(*key)
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._loop.close()

    def run(self, namespace: str, pod: str) -> PlayedPod:
        """Start a pod as kubelet would: mount its files, run it, report that it is ready."""
        eventually(f"{pod} exists", lambda: self.get(namespace, pod))
        found = self.get(namespace, pod)
        assert found is not None
        folder = self.folder / namespace / found["metadata"]["uid"]
        document = self.mount(found, folder)
        number = next(_numbers)
        address = f"127.{1 + os.getpid() % 200}.{number // 250}.{1 + number % 250}"
        played = self._do(self._begin(found, folder, address, document))
        self.pods[namespace, pod] = played
        self.set_ready(namespace, pod, address=address)
        return played

    def set_ready(
        self, namespace: str, pod: str, *, address: str | None = None, ready: bool = True
    ) -> None:
        """Write a pod's status, as kubelet does."""
        state = "True" if ready else "False"
        status: dict[str, Any] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": state}],
        }
        if address:
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        self.patch_status(namespace, pod, status)

    def patch_status(self, namespace: str, pod: str, status: dict[str, Any]) -> None:
        """Change a pod's status."""
        patch = json.dumps({"status": status})
        self.cluster.kubectl(
            "patch",
            "pod",
            pod,
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            patch,
        )

    def say(self, namespace: str, pod: str, model: str, **fields: Any) -> None:
        """Have a pod report a model otherwise."""
        models = self.pods[namespace, pod].models
        self._loop.call_soon_threadsafe(lambda: models.say(model, **fields))

    def kill(self, namespace: str, pod: str) -> None:
        """End a pod's process at once."""
        played = self.pods.pop((namespace, pod))
        self._do(played.stack.aclose())

    async def _begin(
        self, found: Any, folder: Path, address: str, document: PoolDesired
    ) -> PlayedPod:
        name = found["metadata"]["name"]
        models = PlayedModels(name)
        await models.apply(document)
        settings = settings_for(
            folder,
            internal_host=address,
            internal_port=INTERNAL_PORT,
            internal_token_file=folder / "token",
            pod_name=name,
        )
        stack = AsyncExitStack()
        runtime = await stack.enter_async_context(running(settings, models))
        runtime.documents._collections = PlayedCollections()
        return PlayedPod(name, found["metadata"]["uid"], models, runtime, stack)

    def mount(self, found: Any, folder: Path) -> PoolDesired:
        """Put the pod's token into a file and return the document of its ConfigMap."""
        namespace = found["metadata"]["namespace"]
        volumes = {v["name"]: v for v in found["spec"]["volumes"]}
        secret = self.cluster.get_json(
            "secret", volumes["token"]["secret"]["secretName"], "-n", namespace
        )
        folder.mkdir(parents=True)
        (folder / "token").write_bytes(base64.b64decode(secret["data"]["token"]))
        config_map = self.cluster.get_json(
            "configmap", volumes["desired"]["configMap"]["name"], "-n", namespace
        )
        return PoolDesired.model_validate_json(config_map["data"]["desired.json"])

    def get(self, namespace: str, pod: str) -> dict[str, Any] | None:
        """Return a pod, or None."""
        items = self.cluster.get_json("pods", "-n", namespace)["items"]
        found = [p for p in items if p["metadata"]["name"] == pod]
        return found[0] if found else None

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(timeout=PATIENCE)
