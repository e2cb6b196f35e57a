"""The reconciler: one key in; observe, decide, apply.

What members of a pool share is read and written under the pool's key only, which passes on what
they need to know and makes due whom a change concerns. A model's key writes its own status and
Service. Both look afresh each time; nothing that is decided here rests on an event.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.reindex_job import ReindexJob
from ullage_api.kinds.vector_collection import VectorCollection
from ullage_api.wire.pool_desired import DesiredCollection, DesiredReindex
from ullage_operator.controller.errors import (
    GoneError,
    NameTakenError,
    ReconcileError,
    RefusedError,
)
from ullage_operator.controller.gathering import Gatherer
from ullage_operator.controller.keys import Key, KeyKind
from ullage_operator.controller.ports import EventRecorder, KubeClient, Metrics, PodReports
from ullage_operator.controller.queue import WorkQueue
from ullage_operator.reconcile.collection import decide_collection, is_wanted, refusals
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.observed import (
    CollectionObserved,
    ModelObserved,
    PoolFacts,
    PoolNote,
    PoolObserved,
    ReindexObserved,
    profile_in_effect,
)
from ullage_operator.reconcile.plan import Apply, EventNote, Plan, Push, Verb
from ullage_operator.reconcile.pool import (
    alias_losers,
    decide_pool,
    with_conflict,
)
from ullage_operator.reconcile.reindex import decide_reindex, rolled_back

log = structlog.get_logger(__name__)

RESYNC_SECONDS: Final = (300.0, 600.0)
"""Bounds of the time after which a pool and its members are looked at although nothing happened."""

GONE_SECONDS: Final = 2.0
"""When a model is looked at again whose namespace, or whose child, was going away."""

REFUSED_SECONDS: Final = 60.0
"""How often a manifest that the API server refused is tried again."""


SUMMARIES: Final = frozenset({"Ready", "Complete"})
"""Conditions that say in a word how a resource is."""


@dataclass(slots=True)
class PoolMemory:
    """What is remembered of a pool between two looks; losing it costs one more look."""

    facts: PoolFacts = field(default_factory=PoolFacts)
    told: object = None
    """What of it every member was told; None makes sure that they are told again."""
    announced: float = 0.0
    """When all members were last made due, on the event loop's clock."""


@dataclass(slots=True)
class Reconciler:
    """Brings the cluster to what the resources ask for, one key at a time."""

    gatherer: Gatherer
    client: KubeClient
    reports: PodReports
    recorder: EventRecorder
    metrics: Metrics
    queue: WorkQueue[Key]
    spread: Callable[[float, float], float] = random.uniform
    _pools: dict[Key, PoolMemory] = field(default_factory=dict)
    _taken: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    _written: dict[Key, datetime] = field(default_factory=dict)
    """When each status was last written."""

    async def reconcile(self, key: Key) -> None:
        """Do all that is to be done for one key now; raises ReconcileError when some failed."""
        if key.kind is KeyKind.POOL:
            await self._pool(key)
        elif key.kind is KeyKind.MODEL:
            await self._model(key)
        elif key.kind is KeyKind.COLLECTION:
            await self._collection(key)
        else:
            await self._reindex(key)

    def look_at_every_pool(self) -> None:
        """Make every known pool and its members due: something they all depend on has changed."""
        for key, memory in self._pools.items():
            memory.told = None
            self.queue.add(key)

    # --- Pools ----------------------------------------------------------------------------------

    async def _pool(self, key: Key) -> None:
        observed = await self.gatherer.pool(key)
        if all(m.metadata.deletion_timestamp is not None for m in observed.members) and not any(
            is_wanted(c) for c in observed.collections
        ):
            self.reports.forget(key)
            self._pools.pop(key, None)
            self.queue.drop(key)
            return
        plan = decide_pool(observed)
        await self._delete(key, plan)
        plan = await self._apply_pool(key, plan, plan.around_push[0])
        pushing = asyncio.create_task(self._push(key, plan.push))
        try:
            plan = await self._apply_pool(key, plan, plan.around_push[1])
            memory = self._pools.setdefault(key, PoolMemory())
            self._announce(key, observed, facts_of(observed, plan), memory)
        except asyncio.CancelledError:
            pushing.cancel()
            raise
        finally:
            await pushing
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)
        self.queue.add_after(key, self.spread(*RESYNC_SECONDS))

    async def _push(self, key: Key, push: Push | None) -> None:
        if push is not None:
            await self.reports.push(key, push.pods, push.document)

    async def _apply_pool(self, key: Key, plan: Plan, writes: Sequence[Apply]) -> Plan:
        """Write some of a pool's plan; what users must know of a failure becomes its note."""
        for write in writes:
            try:
                await self._write(key, write)
            except NameTakenError:
                return with_conflict(plan, write.object_name)
            except GoneError:
                # A pod that ended between the look and now, or a namespace that is ending.
                continue
            except RefusedError as error:
                message = f"the API server refused {write.object_name}: {error}"
                note = PoolNote(Reason.PROFILE_MISSING, message)
                log.warning("refused", **_names(key), object=write.object_name, error=str(error))
                kept = write.manifest["kind"] != "ConfigMap"
                plan = replace(
                    plan,
                    note=plan.note or note,
                    push=plan.push if kept else None,
                    document=plan.document if kept else None,
                    requeue_after=REFUSED_SECONDS,
                )
        return plan

    def _announce(
        self, key: Key, observed: PoolObserved, facts: PoolFacts, memory: PoolMemory
    ) -> None:
        """Make the members due whose status shows something of the pool that has changed."""
        now = asyncio.get_running_loop().time()
        pods = tuple(replace(p, age_seconds=0.0, holds=frozenset()) for p in facts.pods)
        told = (
            facts.note,
            facts.refusals,
            facts.collection_refusals,
            facts.rolled_back,
            facts.profile,
            observed.profile,
            pods,
        )
        everybody = told != memory.told or now - memory.announced >= RESYNC_SECONDS[0]
        known, memory.facts, memory.told = memory.facts, facts, told
        memory.announced = now if everybody else memory.announced
        before, after = _places(known), _places(facts)
        for member in observed.members:
            name = member.metadata.name
            if everybody or before.get(name) != after.get(name):
                self.queue.add(Key.model(key.namespace, name))
        asked, asks = _collections(known), _collections(facts)
        for collection in observed.collections:
            name = collection.metadata.name
            if everybody or asked.get(name) != asks.get(name):
                self.queue.add(Key.collection(key.namespace, name))
        placed, places = _reindexes(known), _reindexes(facts)
        for job in observed.reindexes:
            name = job.metadata.name
            if everybody or placed.get(name) != places.get(name):
                self.queue.add(Key.reindex(key.namespace, name))

    # --- Models ---------------------------------------------------------------------------------

    async def _model(self, key: Key) -> None:
        resource = await self.gatherer.resource(ModelDeployment, key)
        if resource is None:
            self._taken.pop(key, None)
            self._written.pop(key, None)
            self.queue.drop(key)
            return
        pool = Key.pool(key.namespace, resource.spec.pool)
        memory = self._pools.get(pool)
        if memory is None:
            # The pool's own reconcile, which has not been yet, makes its members due.
            self.queue.add(pool)
            return
        observed = await self.gatherer.model(resource, memory.facts, self._taken.get(key, ()))
        observed = replace(observed, written=self._written.get(key))
        plan = decide_model(observed)
        failure: ReconcileError | None = None
        try:
            await self._apply_model(key, pool, plan)
        except NameTakenError:
            taken = tuple(a.object_name for a in plan.applies if a.verb is Verb.CREATE)
            plan = self._with_taken(key, observed, taken)
        except GoneError:
            self.queue.add_after(key, GONE_SECONDS)
            return
        except RefusedError as error:
            failure = error
            note = EventNote("ServiceRefused", f"the API server refused it: {error}", warning=True)
            await self.recorder.record(resource, note)
        else:
            if self._taken.pop(key, None):
                plan = self._with_taken(key, observed, ())
        await self._write_status(key, observed, plan)
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)
        if failure is not None:
            raise failure

    def _with_taken(self, key: Key, observed: ModelObserved, taken: tuple[str, ...]) -> Plan:
        """Decide again, now that it is known which names belong to somebody else."""
        if taken:
            self._taken[key] = taken
        return decide_model(replace(observed, taken=taken))

    async def _apply_model(self, key: Key, pool: Key, plan: Plan) -> None:
        await self._delete(key, plan)
        for write in plan.applies:
            await self._write(key, write)
        if plan.concerns_pool:
            self.queue.add(pool)

    # --- Collections ----------------------------------------------------------------------------

    async def _collection(self, key: Key) -> None:
        resource = await self.gatherer.resource(VectorCollection, key)
        if resource is None:
            self._written.pop(key, None)
            self.queue.drop(key)
            return
        pool = Key.pool(key.namespace, resource.spec.pool)
        memory = self._pools.get(pool)
        if memory is None:
            self.queue.add(pool)
            return
        observed = self.gatherer.collection(resource, memory.facts)
        observed = replace(observed, written=self._written.get(key))
        plan = decide_collection(observed)
        try:
            for write in plan.applies:
                await self._write(key, write)
        except GoneError:
            self.queue.add_after(key, GONE_SECONDS)
            return
        await self._write_status(key, observed, plan)
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)

    # --- Reindex jobs ---------------------------------------------------------------------------

    async def _reindex(self, key: Key) -> None:
        resource = await self.gatherer.resource(ReindexJob, key)
        if resource is None:
            self._written.pop(key, None)
            self.queue.drop(key)
            return
        wanted = Key.collection(key.namespace, resource.spec.collection)
        collection = await self.gatherer.resource(VectorCollection, wanted)
        facts, pool = PoolFacts(), None
        if collection is not None:
            pool = Key.pool(key.namespace, collection.spec.pool)
            memory = self._pools.get(pool)
            if memory is None:
                self.queue.add(pool)
                return
            facts = memory.facts
        observed = await self.gatherer.reindex(resource, collection, facts)
        observed = replace(observed, written=self._written.get(key))
        plan = decide_reindex(observed)
        try:
            await self._delete(key, plan)
            for write in plan.applies:
                await self._write(key, write)
        except (GoneError, NameTakenError):
            # Somebody was faster: the next look sees what there is.
            self.queue.add_after(key, GONE_SECONDS)
            return
        if pool is not None and plan.concerns_pool:
            # First: searches wait for it that are to go back.
            self.queue.add(pool)
        await self._write_status(key, observed, plan)
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)

    # --- All four -------------------------------------------------------------------------------

    async def _write_status(
        self, key: Key, observed: ModelObserved | CollectionObserved | ReindexObserved, plan: Plan
    ) -> None:
        resource = observed.resource
        if plan.status is not None:
            metadata = resource.metadata
            manifest = {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "metadata": {
                    "name": metadata.name,
                    "namespace": metadata.namespace,
                    "uid": metadata.uid,
                },
                "status": plan.status,
            }
            try:
                await self.client.apply_status(manifest)
            except GoneError:
                return
            self._written[key] = observed.now
            self.metrics.status_written(resource.kind)
            summary = next(c for c in plan.status["conditions"] if c["type"] in SUMMARIES)
            log.info(
                "status written", **_names(key), is_so=summary["status"], why=summary["reason"]
            )
        for note in plan.events:
            await self.recorder.record(resource, note)

    async def _write(self, key: Key, write: Apply) -> None:
        if write.verb is Verb.CREATE:
            await self.client.create(write.manifest)
        else:
            await self.client.apply(write.manifest)
        log.info("applied", **_names(key), object=write.object_name, why=write.why)

    async def _delete(self, key: Key, plan: Plan) -> None:
        for target in plan.deletes:
            await self.client.delete(key.namespace, target)
            log.info(
                "deleted", **_names(key), object=f"{target.kind} {target.name}", why=target.why
            )


def facts_of(observed: PoolObserved, plan: Plan) -> PoolFacts:
    """Return what a pool's members need to know after its plan was carried out."""
    before = observed.record.desired if observed.record is not None else None
    return PoolFacts(
        desired=plan.document or before,
        profile=profile_in_effect(observed),
        pods=observed.pods,
        refusals=alias_losers(observed.members),
        collection_refusals=refusals(observed),
        rolled_back=rolled_back(observed.reindexes),
        note=plan.note,
    )


def _places(facts: PoolFacts) -> dict[str, tuple[str, tuple[int, ...]]]:
    models = facts.desired.models if facts.desired is not None else ()
    return {m.name: (m.uid, m.ordinals) for m in models}


def _collections(facts: PoolFacts) -> dict[str, DesiredCollection]:
    asked = facts.desired.collections if facts.desired is not None else ()
    return {c.name: c for c in asked}


def _reindexes(facts: PoolFacts) -> dict[str, DesiredReindex]:
    asked = facts.desired.reindexes if facts.desired is not None else ()
    return {r.name: r for r in asked}


def _names(key: Key) -> dict[str, Any]:
    return {"kind": key.kind.value, "namespace": key.namespace, "name": key.name}
