"""Loading: from a desired revision to a live generation that has passed its gate."""

import asyncio
import collections
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.domain import (
    DEFAULT_PARALLEL,
    Adapter,
    CacheType,
    EngineSpec,
    Footprint,
    Loaded,
)
from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.core.generation import Generation
from ullage_runtime.core.last_words import last_words
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability, PoolingType
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.engines.base import Engine
from ullage_runtime.engines.factory import EngineFactory
from ullage_runtime.governor.reservations import Reservation
from ullage_runtime.governor.service import Governor
from ullage_runtime.models.artifacts import Artifacts
from ullage_runtime.models.clock import Clock
from ullage_runtime.models.gate import Trial, pass_gate
from ullage_runtime.models.live import Live
from ullage_runtime.models.metrics import ModelMetrics
from ullage_runtime.models.room import Claim, Room
from ullage_runtime.models.spare import SpareEngine
from ullage_runtime.models.warm import WarmCopy, WarmTier

MAX_ESTIMATES: Final = 256

_PURPOSES: Final[dict[Task | None, Ability]] = {
    None: Ability.GENERATE,
    Task.EMBEDDING: Ability.EMBED,
    Task.RERANK: Ability.RERANK,
}

_OF_THE_ENGINE: Final = frozenset({Reason.INVALID_MODEL, Reason.LOAD_FAILED})

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class OvershotError(LoadError):
    """A model that took more than was promised and more than there was."""


@dataclass(slots=True)
class _Taken:
    """What an attempt has taken so far, and must give back if it fails."""

    engine: Engine | None = None
    reservation: Reservation | None = None
    copy: WarmCopy | None = None
    """What was kept of the model since it left."""

    def complete(self) -> tuple[Engine, Reservation]:
        if self.engine is None or self.reservation is None:
            raise AssertionError("a loaded model has an engine and a reservation")
        return self.engine, self.reservation

    async def give_back(self) -> None:
        if self.engine is not None:
            await self.engine.unload()
        if self.copy is not None:
            self.copy.close()
        if self.reservation is not None:
            self.reservation.release()


class Loader:
    """Loads generations for every model of a pod; knows nothing of which of them answers."""

    def __init__(
        self,
        engines: EngineFactory,
        spare: SpareEngine,
        warm: WarmTier,
        governor: Governor,
        room: Room,
        clock: Clock,
        metrics: ModelMetrics,
    ) -> None:
        self._engines = engines
        self._spare = spare
        self._warm = warm
        self._governor = governor
        self._room = room
        self._clock = clock
        self._metrics = metrics
        self._ids = itertools.count(1)
        self._starting = asyncio.Lock()
        """Held by whoever starts an engine that has to be alone for it."""
        self._estimates: collections.OrderedDict[str, Footprint] = collections.OrderedDict()
        self._seconds: collections.OrderedDict[str, float] = collections.OrderedDict()

    async def load(
        self,
        *,
        model: str,
        artifacts: Artifacts,
        claim: Claim,
        trial: Trial,
        on_check: Callable[[], Awaitable[None]],
    ) -> Live:
        """Return a live generation, or raise LoadError with everything given back.

        `on_check` is awaited before the loaded model is put on trial.

        One that takes more than it was promised and more than there is gives everything back and
        is loaded once more, with what it really takes as its estimate.
        """
        try:
            return await self._load_once(model, artifacts, claim, trial, on_check)
        except OvershotError as error:
            _log.warning("load.overshot", model=model, why=error.message)
            self._metrics.overshoots.labels(model).inc()
        return await self._load_once(model, artifacts, claim, trial, on_check)

    async def foreseen(self, artifacts: Artifacts) -> Footprint:
        """Return what a load would take, without loading; raises LoadError."""
        engine = await self._engines(artifacts.model.path)
        try:
            return await engine.estimate(engine_spec(artifacts))
        finally:
            await engine.unload()

    def expected_seconds(self, artifacts: Artifacts, beside: Live) -> float:
        """Return how long a load will take: as long as last time, or as one of another size did."""
        known = self._seconds.get(artifacts.key)
        if known is not None:
            return known
        return beside.load_seconds * artifacts.size / max(1, beside.artifacts.size)

    async def _load_once(
        self,
        model: str,
        artifacts: Artifacts,
        claim: Claim,
        trial: Trial,
        on_check: Callable[[], Awaitable[None]],
    ) -> Live:
        began = self._clock.monotonic()
        revision = artifacts.revision
        owner = f"{model}/{revision}#{next(self._ids)}"
        taken = _Taken()
        try:
            loaded = await self._loaded(taken, owner, artifacts, claim)
            load_seconds = self._clock.monotonic() - began
            await on_check()
            await self._check(taken, loaded, artifacts, trial)
            engine, reservation = taken.complete()
            actual = await self._measured(reservation, engine)
            self._check_size(artifacts, reservation, actual)
            is_warm = taken.copy is not None and taken.copy.has_weights
            self._warm.loaded(model, artifacts.key, taken.copy)
        except LoadError as error:
            if taken.engine is not None:
                error.log = error.log or taken.engine.last_words
                _quote(error)
            await taken.give_back()
            raise
        except BaseException:
            await taken.give_back()
            raise
        now = self._clock.monotonic()
        promote_seconds = load_seconds if is_warm else None
        if is_warm:
            self._metrics.promote_seconds.labels(model).observe(load_seconds)
        else:
            _remember(self._seconds, artifacts.key, load_seconds)
            self._metrics.load_seconds.labels(model).observe(load_seconds)
        self._metrics.estimate_ratio.observe(actual / max(1, reservation.footprint.total))
        return Live(
            generation=Generation(id=owner, revision=revision),
            want=artifacts.want,
            artifacts=artifacts,
            engine=engine,
            reservation=reservation,
            loaded=loaded,
            load_seconds=self._seconds.get(artifacts.key, load_seconds),
            promote_seconds=promote_seconds,
            began=now,
        )

    async def _loaded(
        self,
        taken: "_Taken",
        owner: str,
        artifacts: Artifacts,
        claim: Claim,
    ) -> Loaded:
        """Estimate, reserve and load; what is taken on the way is noted at once."""
        spec, path = engine_spec(artifacts), artifacts.model.path
        # Before memory is asked for: what it takes is this model's from now on.
        taken.engine = await self._spare.take(path)
        footprint = self._known_estimate(artifacts)
        if footprint is None:
            taken.engine = taken.engine or await self._engines(path)
            footprint = await taken.engine.estimate(spec)
            self._remember(artifacts, footprint)
        kept = await self._warm.prepare(claim.model, artifacts.key)
        taken.reservation = await self._room.reserve(owner, footprint, claim, instead_of=kept)
        taken.copy = copy = self._warm.take(claim.model, artifacts.key)
        if copy is not None:
            spec = replace(spec, path=copy.path, prefixes=copy.prefixes_path)
        gpus = taken.reservation.gpus
        if gpus and taken.engine is not None:
            # It was started before its place was known, and sees every GPU.
            await taken.engine.unload()
            taken.engine = None
        engine = taken.engine = taken.engine or await self._engines(path, gpus)
        if not engine.starts_alone:
            return await engine.load(spec)
        async with self._starting:
            return await engine.load(spec)

    @staticmethod
    async def _check(taken: "_Taken", loaded: Loaded, artifacts: Artifacts, trial: Trial) -> None:
        engine, _ = taken.complete()
        await pass_gate(engine, loaded, [a.name for a in artifacts.adapters], trial)

    @staticmethod
    async def _measured(reservation: Reservation, engine: Engine) -> int:
        try:
            return await reservation.measure(engine)
        except EngineFailed as error:
            raise LoadError(Reason.LOAD_FAILED, error.message, final=False) from error

    def _check_size(self, artifacts: Artifacts, reservation: Reservation, actual: int) -> None:
        """Remember what the estimate left out; raises OvershotError without room for it."""
        footprint = reservation.footprint
        missing = actual - footprint.total
        if missing <= 0:
            return
        self._remember(artifacts, replace(footprint, overhead=footprint.overhead + missing))
        if reservation.is_overdrawn:
            raise OvershotError(
                Reason.WAITING_FOR_MEMORY,
                f"it took {human_bytes(actual)}, {human_bytes(missing)} more than expected, and "
                "there is no room for that",
                final=False,
            )

    def _known_estimate(self, artifacts: Artifacts) -> Footprint | None:
        key = artifacts.key
        if key in self._estimates:
            self._estimates.move_to_end(key)
        return self._estimates.get(key)

    def _remember(self, artifacts: Artifacts, footprint: Footprint) -> None:
        _remember(self._estimates, artifacts.key, footprint)


def _quote(error: LoadError) -> None:
    """Have the message of what the engine is to blame for end with its last words."""
    if last_words(error.log) in error.message:  # as where the engine's process died
        return
    words = last_words(error.log, besides=error.message)
    if words and error.reason in _OF_THE_ENGINE:
        error.message = f"{error.message}; the engine's last words: {words}"


def _remember(kept: "collections.OrderedDict[str, T]", key: str, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MAX_ESTIMATES:
        kept.popitem(last=False)


def engine_spec(artifacts: Artifacts) -> EngineSpec:
    """Return what the engine needs to load a revision's files."""
    want = artifacts.want
    settings, purpose = want.engine, _PURPOSES[want.task]
    return EngineSpec(
        path=artifacts.model.path,
        context_length=settings.context_length,
        gpu_layers=-1 if settings.gpu_layers is None else settings.gpu_layers,
        tensor_parallel=settings.tensor_parallel or 1,
        threads=settings.threads or 0,
        batch_threads=settings.batch_threads or 0,
        parallel=settings.parallel
        or (DEFAULT_PARALLEL if purpose is Ability.GENERATE else DEFAULT_TEXTS),
        kv_cache_type=CacheType(settings.kv_cache_type or CacheType.F16),
        adapters=tuple(Adapter(a.name, a.file.path, a.scale) for a in artifacts.adapters),
        purpose=purpose,
        pooling=PoolingType(settings.pooling or PoolingType.AUTO),
        precision=PrecisionType(settings.precision or PrecisionType.AUTO),
    )
