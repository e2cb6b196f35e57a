"""ModelPool: the models of one pod, as the desired document wants them."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Self

import structlog
from prometheus_client import CollectorRegistry

from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import PodReport, ReportedRetrieval
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.core.changes import Changes
from ullage_runtime.core.decisions import Decision, Decisions
from ullage_runtime.core.domain import ModelCard
from ullage_runtime.core.errors import ModelNotFound, ShuttingDown
from ullage_runtime.engines.factory import EngineFactory, start_worker
from ullage_runtime.governor.detection import detected_devices
from ullage_runtime.governor.devices import Device
from ullage_runtime.governor.policy import MemoryOverrides, memory_policy
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.batch_work import BatchWork
from ullage_runtime.models.caches import Caches
from ullage_runtime.models.clock import Clock, SystemClock
from ullage_runtime.models.journal import Journal, MemoryJournal
from ullage_runtime.models.loading import Loader
from ullage_runtime.models.metrics import ModelMetrics
from ullage_runtime.models.ports import InUse, Lease, ModelSourcePort
from ullage_runtime.models.reporting import shown
from ullage_runtime.models.room import Room
from ullage_runtime.models.served import ServedModel
from ullage_runtime.models.spare import SETTLE_SECONDS, KindOf, SpareEngine
from ullage_runtime.models.surroundings import Surroundings
from ullage_runtime.models.warm import WarmTier

SAMPLE_SECONDS: Final = 5.0
"""How often loaded models are measured."""
FRESH_SECONDS: Final = 1.0
"""For how long a measurement is good enough for somebody else who asks."""
MEMORY_SECONDS: Final = 2.0
"""How often devices are read."""

_log = structlog.get_logger(__name__)


class ModelPool:
    """Every model of one pod; a `Models`.

    `source` fetches model files. `pod_name`, `ordinal` and `version` are what the report says of
    this process. `engines` starts an engine for a file, by default in a worker process; with
    `kind_of` one is kept ready for the next load of the kind that was loaded last. `devices` are
    governed, by default those of this machine; models are loaded into GPUs, or into the pod's
    memory where there are none. `memory` stands above the pool's settings. `registry` receives the
    metrics of loads, restarts, leases and the ledger; without one the pool makes its own, to be
    read as `pool.registry`. `clock` and `boot_id` are for tests. `journal` keeps the steps of
    swaps over a restart; without one they are forgotten with the process. `caches` keep what
    was computed; without them nothing is kept.

    Which collections embed with a model, others may say: see `in_use`, which knows of none; and
    `retrieval`, which reports none. Whoever sets that one calls `note_change` when it changes.

    Used as `async with ModelPool(...) as pool`, or with `start()` and `close(seconds)`. It must be
    made within a running event loop. It keeps nothing else on disk: who calls `apply` after a
    restart brings the last accepted document along.
    """

    def __init__(
        self,
        *,
        source: ModelSourcePort,
        pod_name: str,
        ordinal: int,
        version: str,
        engines: EngineFactory = start_worker,
        kind_of: KindOf | None = None,
        devices: Sequence[Device] | None = None,
        memory: MemoryOverrides | None = None,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
        boot_id: str | None = None,
        journal: Journal | None = None,
        caches: Caches | None = None,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self.boot_id = boot_id or secrets.token_hex(8)
        self._pod_name = pod_name
        self._ordinal = ordinal
        self._version = version
        self._clock = clock or SystemClock()
        self._memory = memory or MemoryOverrides()
        self._governor = Governor(
            detected_devices() if devices is None else devices,
            policy=memory_policy(RuntimeSettings(), self._memory),
            registry=self.registry,
        )
        metrics = ModelMetrics(self.registry)
        decisions = Decisions()
        self._batch = BatchWork(metrics)
        # An engine sees the devices that its process was started for.
        kind_of = None if self._governor.has_choice else kind_of
        self._spare = SpareEngine(engines, kind_of, self._governor, self._clock)
        self._warm = WarmTier(self._governor, self._clock)
        room = Room(self._governor, self._clock, decisions, metrics, self._spare, self._warm)
        self.in_use: InUse = lambda _: ()
        self.retrieval: Callable[[], ReportedRetrieval] = ReportedRetrieval
        self._around = Surroundings(
            source=source,
            loader=Loader(
                engines, self._spare, self._warm, self._governor, room, self._clock, metrics
            ),
            governor=self._governor,
            clock=self._clock,
            metrics=metrics,
            room=room,
            warm=self._warm,
            decisions=decisions,
            journal=journal or MemoryJournal(),
            in_use=lambda names: tuple(self.in_use(names)),
            caches=caches or Caches(),
        )
        self._desired: PoolDesired | None = None
        self._names: dict[str, str] = {}
        self._served: dict[str, ServedModel] = {}
        self._created: dict[str, int] = {}
        self._removals: set[asyncio.Task[None]] = set()
        self._samplers: tuple[asyncio.Task[None], ...] = ()
        self._changes = Changes()
        self._changed = asyncio.Event()
        self._sampled = -FRESH_SECONDS
        self._closing = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(0)

    async def start(self) -> None:
        """Begin to read devices and measure models; models load as documents are applied."""
        if not self._samplers:
            await self._governor.sample(self._clock.monotonic())
            self.note_change()
            self._samplers = (
                asyncio.create_task(self._measure_models(), name="models-sampler"),
                asyncio.create_task(self._read_devices(), name="devices-sampler"),
                asyncio.create_task(self._keep_spare(), name="spare-keeper"),
            )

    # The desired document ------------------------------------------------------------------------

    async def apply(self, desired: PoolDesired) -> bool:
        """Accept a desired document and begin to bring it about; False if it is older than ours.

        Raises ValueError when the document is another pool's.
        """
        current = self._desired
        if self._closing:
            return False
        if current is not None:
            ours, theirs = _pool_of(current), _pool_of(desired)
            if ours != theirs:
                raise ValueError(f"this pod belongs to pool {ours}, the document is for {theirs}")
            if desired.sequence == current.sequence:
                return desired.hash == current.hash
            if desired.sequence < current.sequence:
                return False
        self._desired = desired
        self._names = _names(desired.models)
        self._governor.configure(memory_policy(desired.settings, self._memory))
        self._reconcile(desired)
        self.note_change()
        return True

    def _reconcile(self, desired: PoolDesired) -> None:
        wanted = {model.name: model for model in desired.models}
        for name in tuple(self._served):
            # A deleted and re-created resource is another model, although the name is the same.
            if name not in wanted or wanted[name].uid != self._served[name].desired.uid:
                self._remove(name)
        for name, model in wanted.items():
            self._created.setdefault(name, int(self._clock.wall()))
            served = self._served.get(name)
            is_here, waits = self.is_local(model), self._ordinal in model.waiting
            if served is not None:
                served.update(model, desired.settings, is_here=is_here, waits=waits)
                continue
            self._served[name] = ServedModel(
                model,
                desired.settings,
                is_here=is_here,
                waits=waits,
                around=self._around,
                on_change=self.note_change,
            )

    def _remove(self, name: str) -> None:
        served = self._served.pop(name)
        self._created.pop(name, None)
        self._around.metrics.forget(name)
        self._around.caches.forget(name)
        task = asyncio.create_task(served.remove(forget=True))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    @property
    def desired(self) -> PoolDesired | None:
        """The document in effect, or None before the first."""
        return self._desired

    # Requests ------------------------------------------------------------------------------------

    def find(self, name: str) -> DesiredModel:
        """Return the model of a name or alias; raises ModelNotFound, which lists known names."""
        served = self._served.get(self._names.get(name, ""))
        if served is None:
            known = ", ".join(sorted(self._served)) or "none yet"
            raise ModelNotFound(
                f"there is no model {name!r} here; the models are: {known}", param="model"
            )
        return served.desired

    def revisions(self, name: str) -> Sequence[DesiredRevision]:
        """Return what of a model has answered here for good since the process began.

        By its digests, the latest first; nothing of a model that is not here.
        """
        served = self._served.get(name)
        return () if served is None else served.answered

    def is_local(self, model: DesiredModel) -> bool:
        """Whether this pod should hold the model itself."""
        return self._ordinal in model.ordinals

    def revision(self, model: DesiredModel) -> str | None:
        """Return the revision that answers now, or None while none is in memory."""
        served = self._served.get(model.name)
        return None if served is None else served.admission.revision

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
        """Bind the model's current generation, waiting in its bounded queue if need be.

        Raises Overloaded, ModelLoading, ModelSuspended, ModelUnavailable, InsufficientMemory,
        RequestTimeout, ModelNotFound when it has gone meanwhile, and ShuttingDown.
        """
        if self._closing:
            raise ShuttingDown("this pod is ending", retry_after=1)
        served = self._served.get(model.name)
        if served is None:
            raise ModelNotFound(f"there is no model {model.name!r} here any more", param="model")
        batch = self._batch if background or served.desired.residency.is_batch else None
        return served.admission.lease(
            tenant, priority=priority, beside=beside, until=until, batch=batch
        )

    def cards(self) -> Sequence[ModelCard]:
        """Return every model of the pool, sorted by name."""
        return tuple(
            ModelCard(
                name=name,
                aliases=served.desired.aliases,
                task=served.desired.task.value,
                residency=served.report().residency.value,
                created=self._created[name],
                local=self.is_local(served.desired),
                adapters=tuple(a.name for a in served.desired.target.adapters),
            )
            for name, served in sorted(self._served.items())
        )

    # Reports -------------------------------------------------------------------------------------

    def report(self) -> PodReport:
        """Return the pod's report as of now."""
        desired, kept = self._desired, self.retrieval()
        return PodReport(
            pod=self._pod_name,
            ordinal=self._ordinal,
            boot_id=self.boot_id,
            version=self._version,
            sequence=self._changes.sequence,
            acknowledged=desired.sequence if desired is not None else 0,
            acknowledged_hash=desired.hash if desired is not None else "",
            level=self._governor.level,
            devices=self._governor.report(),
            models=tuple(served.report() for _, served in sorted(self._served.items())),
            collections=kept.collections,
            reindexes=kept.reindexes,
        )

    def decisions(self) -> Sequence[Decision]:
        """Return the latest models that left memory or were not let in, newest first."""
        return self._around.decisions.latest()

    async def changed(self, after: int, timeout: float) -> PodReport:  # noqa: ASYNC109
        """Return the report as soon as its sequence exceeds `after`, at the latest at the timeout.

        A caller that knows another boot's sequence passes -1 and is answered at once.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._changes.sequence <= after and not self._closing:
                    await self._changed.wait()
        return self.report()

    def models_changed_since(self, sequence: int) -> frozenset[str] | None:
        """Return the names of the models that changed or went since; None if nobody can tell."""
        return self._changes.since(sequence)

    def note_change(self) -> None:
        """Raise the report's sequence if what a resource's status shows has changed."""
        desired = self._desired.sequence if self._desired is not None else 0
        # No model's name is empty; that part is the pod itself.
        parts: dict[str, object] = {"": (desired, self._governor.levels, self.retrieval())}
        if self._changes.note(parts | {n: shown(one.report()) for n, one in self._served.items()}):
            self._wake_readers()

    def _wake_readers(self) -> None:
        waiters, self._changed = self._changed, asyncio.Event()
        waiters.set()

    async def sample(self) -> None:
        """Measure what loaded models take and do, unless that was done a moment ago."""
        now = self._clock.monotonic()
        if now - self._sampled < FRESH_SECONDS:
            return
        self._sampled = now
        await asyncio.gather(*(served.sample() for served in tuple(self._served.values())))

    async def _measure_models(self) -> None:
        while True:
            await self._clock.sleep(SAMPLE_SECONDS)
            await self.sample()

    async def _read_devices(self) -> None:
        while True:
            await self._clock.sleep(MEMORY_SECONDS)
            await self._governor.sample(self._clock.monotonic())
            level = self._governor.level
            self._around.caches.fit(level)
            if level is not None:
                self._batch.follow(level)
                threshold = self._memory.idle_threshold
                default = self._governor.idle_threshold
                self._around.room.relieve(default if threshold is None else threshold)
            self.note_change()
            self._warm.tend(is_calm=self._around.room.is_calm)

    async def _keep_spare(self) -> None:
        while True:
            await self._clock.sleep(SETTLE_SECONDS)
            is_calm = self._around.room.is_calm
            await self._spare.tend(is_wanted=bool(self._served), is_calm=is_calm)

    # The end -------------------------------------------------------------------------------------

    async def close(self, drain_seconds: float) -> None:
        """Stop accepting, let leases end within the limit, unload everything; idempotent."""
        self._closing = True
        self._wake_readers()
        self._batch.go_on()
        for sampler in self._samplers:
            sampler.cancel()
        await asyncio.gather(*self._samplers, return_exceptions=True)
        await self._spare.close()
        served = tuple(self._served.values())
        removals = {*self._removals, *(asyncio.create_task(s.remove()) for s in served)}
        if removals:
            await self._wait_gone(served, removals, drain_seconds)
        await self._warm.close()
        await self._around.journal.close()

    @staticmethod
    async def _wait_gone(
        served: Sequence[ServedModel], removals: "set[asyncio.Task[None]]", drain_seconds: float
    ) -> None:
        _, late = await asyncio.wait(removals, timeout=drain_seconds)
        if late:
            _log.info("pool.closing_hard", models=len(late))
            for one in served:
                one.hurry()
            await asyncio.wait(late)


def _pool_of(desired: PoolDesired) -> str:
    return f"{desired.namespace}/{desired.pool}"


def _names(models: Sequence[DesiredModel]) -> dict[str, str]:
    """Return the model of every name; a model's own name wins over another one's alias."""
    names = {alias: model.name for model in reversed(models) for alias in model.aliases}
    return names | {model.name: model.name for model in models}
