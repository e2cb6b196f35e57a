"""Engines, sources, devices and clocks that do as they are told, for the models' lifecycle."""

import asyncio
import itertools
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pod_report import DeviceKind, ReportedModel
from ullage_api.wire.pool_desired import (
    DesiredAdapter,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.core.domain import (
    Chunk,
    EngineSpec,
    EngineStats,
    FinishReason,
    Footprint,
    GenerateRequest,
    Loaded,
    Usage,
)
from ullage_runtime.core.errors import EngineDied, EngineFailed, LoadError
from ullage_runtime.core.pooled import Ability, EmbedRequest, PooledAnswer, RerankRequest, Said
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ullage_runtime.governor.devices import DeviceError, Reading
from ullage_runtime.governor.policy import MemoryOverrides
from ullage_runtime.models.journal import Journal
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.spare import KindOf

MIB = 1 << 20
VECTOR = (0.6, 0.8)


class VirtualClock:
    """The running loop's time, without chance."""

    def wall(self) -> float:
        return 1_700_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jitter(self) -> float:
        return 0.0


@dataclass
class FakeDevice:
    """A device of a given size."""

    size: int = 1000 * MIB
    id: str = "host"
    kind: DeviceKind = DeviceKind.HOST
    name: str = "memory"
    cuda_name: str = ""

    used: int = 0
    own: int | None = None
    throttling: tuple[str, ...] = ()
    stalled: float | None = None
    broken: bool = False

    def total(self) -> int:
        return self.size

    async def read(self) -> Reading:
        if self.broken:
            raise DeviceError("the driver does not answer")
        return Reading(self.size, self.used, self.own, self.throttling, self.stalled)

    async def taken_by(self, pid: int, resident: int, estimated: int) -> int:
        return resident


@dataclass
class FakeSource:
    """Answers fetches from a table of URI to digest; an error in the table is raised."""

    files: dict[str, str | LoadError] = field(default_factory=dict)
    seconds: float = 0.0
    fetched: list[str] = field(default_factory=list)

    async def fetch(
        self,
        uri: str,
        sha256: str | None,
        settings: RuntimeSettings,
        progress: Callable[[int, int | None], None],
        inspect: Inspect | None = None,
        precision: PrecisionType = PrecisionType.AUTO,
    ) -> CachedModel:
        self.fetched.append(uri)
        for step in range(1, 101):
            if not self.seconds:
                break
            await asyncio.sleep(self.seconds / 100)
            progress(step, 100)
        found = self.files.get(uri, uri)
        if isinstance(found, LoadError):
            raise found
        return CachedModel(path=found, sha256=found, size=100)


@dataclass
class FakeEngines:
    """Makes engines, and remembers them; what they do is set here, by the path of their file."""

    footprint: Footprint = field(default_factory=lambda: Footprint(weights=100 * MIB))
    footprints: dict[str, Footprint] = field(default_factory=dict)
    resident: int = 90 * MIB
    empty: int | None = None
    """What an engine takes before it has loaded anything, if that is something else."""
    load_seconds: float = 1.0
    load_errors: dict[str, list[LoadError]] = field(default_factory=dict)
    step_seconds: float = 0.1
    slowness: dict[str, float] = field(default_factory=dict)
    """How many times as long steps take."""
    broken: set[str] = field(default_factory=set)
    """What fails each request."""
    vectors: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """What texts become, whatever they are; else it is `VECTOR`."""
    sequences: int = 1
    maps_files: bool = False
    saved: bytes = b""
    """What they save of frequent prompts."""
    made: list["FakeEngine"] = field(default_factory=list)
    _pids: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    async def __call__(self, path: str, gpus: str = "") -> "FakeEngine":
        engine = FakeEngine(self, path, next(self._pids), gpus)
        self.made.append(engine)
        return engine

    @property
    def alive(self) -> list["FakeEngine"]:
        return [engine for engine in self.made if not engine.over.is_set()]


class FakeEngine:
    """One engine: it loads, counts aloud and dies when it is told to."""

    def __init__(self, engines: FakeEngines, path: str, pid: int, gpus: str = "") -> None:
        self._engines = engines
        self.gpus = gpus
        self.path = path
        self.pid = pid
        self.starts_alone = False
        self.over = asyncio.Event()
        self.running = 0
        self.is_loaded = False
        self.spec: EngineSpec | None = None
        self.asked: list[GenerateRequest] = []
        self.how = ""
        self.last_words: tuple[str, ...] = ("the last thing it said",)
        self.embedded: list[EmbedRequest] = []

    async def estimate(self, spec: EngineSpec) -> Footprint:
        return self._engines.footprints.get(self.path, self._engines.footprint)

    async def load(self, spec: EngineSpec) -> Loaded:
        await asyncio.sleep(self._engines.load_seconds)
        errors = self._engines.load_errors.get(self.path)
        if errors:
            error = errors.pop(0)
            raise LoadError(error.reason, error.message, error.final)
        self.is_loaded, self.spec = True, spec
        return Loaded(
            engine="Fake",
            architecture="fake",
            context_length=spec.context_length or 512,
            vocabulary_size=10,
            has_chat_template=True,
            device="CPU (fake)",
            layers_offloaded=0,
            layers_total=1,
            load_seconds=self._engines.load_seconds,
            max_sequences=self._engines.sequences,
            abilities=(spec.purpose,),
            dimensions=len(self._vector) if spec.purpose is Ability.EMBED else 0,
            maps_file=self._engines.maps_files,
        )

    async def embed(self, request: EmbedRequest) -> PooledAnswer:
        await self._step()
        self.embedded.append(request)
        vector = Said(array("f", self._vector).tobytes())
        return PooledAnswer(tuple(vector for _ in request.inputs), (1,) * len(request.inputs))

    @property
    def _vector(self) -> tuple[float, ...]:
        return self._engines.vectors.get(self.path, VECTOR)

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        await self._step()
        scores = (Said(array("f", [float(len(text))]).tobytes()) for text in request.documents)
        return PooledAnswer(tuple(scores), (1,) * len(request.documents))

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        return Tokens(tuple((request.text or "").encode()))

    async def detokenize(self, request: DetokenizeRequest) -> str:
        return bytes(request.tokens).decode()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        self.running += 1
        self.asked.append(request)
        try:
            limit = request.sampling.max_tokens or 10
            for count in range(1, limit + 1):
                await self._step()
                finish = FinishReason.LENGTH if count == limit else None
                yield Chunk(text=f"{self.path}:{count} ", usage=Usage(1, count), finish=finish)
        finally:
            self.running -= 1

    async def _step(self) -> None:
        if self.path in self._engines.broken:
            raise EngineFailed("it has forgotten everything", retry_after=1)
        seconds = self._engines.step_seconds * self._engines.slowness.get(self.path, 1)
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            return
        raise EngineDied(self.how or "gone", retry_after=1)

    async def save_prefixes(self, path: str, limit: int) -> int:
        saved = self._engines.saved[:limit]
        return Path(path).write_bytes(saved)  # noqa: ASYNC240 - a few bytes

    async def stats(self) -> EngineStats:
        if self.over.is_set():
            raise EngineFailed("gone")
        engines = self._engines
        empty = engines.resident if engines.empty is None else engines.empty
        return EngineStats(
            resident_bytes=engines.resident if self.is_loaded else empty,
            kv_cells_used=len(engines.saved),
        )

    async def ended(self) -> str:
        await self.over.wait()
        return self.how

    async def unload(self) -> None:
        self.how = self.how or "unloaded"
        self.over.set()

    def die(self) -> None:
        self.how = "the engine's process was ended by SIGKILL"
        self.over.set()


@dataclass
class World:
    """A pool with everything around it."""

    source: FakeSource = field(default_factory=FakeSource)
    engines: FakeEngines = field(default_factory=FakeEngines)
    device: FakeDevice = field(default_factory=FakeDevice)
    sequence: int = 0

    @property
    def loaded_into(self) -> Sequence[FakeDevice]:
        """The devices that models are loaded into."""
        return [self.device]

    def pool(
        self,
        journal: Journal | None = None,
        kind_of: KindOf | None = None,
        *,
        host: FakeDevice | None = None,
        memory: MemoryOverrides | None = None,
    ) -> ModelPool:
        """Return a pool; `host` is the memory in which it keeps what has left the device."""
        return ModelPool(
            source=self.source,
            pod_name="ullage-default-0",
            ordinal=0,
            version="0",
            engines=self.engines,
            kind_of=kind_of,
            devices=[*self.loaded_into, *([] if host is None else [host])],
            memory=memory,
            clock=VirtualClock(),
            boot_id="boot",
            journal=journal,
        )

    def document(self, *models: DesiredModel, **settings: int) -> PoolDesired:
        self.sequence += 1
        return PoolDesired(
            namespace="team",
            pool="default",
            models=models,
            settings=RuntimeSettings(
                memory_max_percent=settings.get("percent", 100), memory_reserve_percent=0
            ),
        ).sealed(self.sequence)


def wanted(
    name: str = "chat",
    uri: str = "file:v1",
    *,
    limits: ServingLimits | None = None,
    suspended: bool = False,
    generation: int = 1,
    aliases: tuple[str, ...] = (),
    engine: EngineSettings | None = None,
    adapters: tuple[DesiredAdapter, ...] = (),
    uid: str = "u1",
    residency: ResidencySettings | None = None,
) -> DesiredModel:
    """Return a model as a desired document has it."""
    return DesiredModel(
        name=name,
        uid=uid,
        generation=generation,
        task=Task.CHAT,
        aliases=aliases,
        ordinals=() if suspended else (0,),
        suspended=suspended,
        target=DesiredRevision(uri=uri, adapters=adapters, engine=engine or EngineSettings()),
        residency=residency or ResidencySettings(),
        serving=limits or ServingLimits(),
    )


async def until(
    pool: ModelPool, condition: Callable[[ReportedModel], bool], name: str = "chat"
) -> ReportedModel:
    """Wait, report by report, until a model is as wished; ten virtual minutes at most."""
    sequence = -1
    async with asyncio.timeout(600):
        while True:
            report = await pool.changed(sequence, 60)
            model = report.model(name)
            if model is not None and condition(model):
                return model
            sequence = report.sequence


async def answer(
    pool: ModelPool, name: str = "chat", request: GenerateRequest | None = None
) -> list[Chunk]:
    """Return all chunks of a generation."""
    request = request or GenerateRequest(request_id="r", prompt="hi")
    async with pool.lease(
        pool.find(name), tenant=request.tenant, priority=request.priority
    ) as lease:
        return [chunk async for chunk in lease.generate(request)]
