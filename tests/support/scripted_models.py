"""Models without an engine: what they answer is scripted, so that HTTP can be tested by itself."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ullage_api.kinds.model_deployment import Task
from ullage_api.wire.pod_report import PodReport, ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.core.decisions import Decision
from ullage_runtime.core.domain import (
    Chunk,
    FinishReason,
    GenerateRequest,
    Loaded,
    ModelCard,
    Usage,
)
from ullage_runtime.core.errors import ModelNotFound, ModelSuspended, ServingError
from ullage_runtime.core.pooled import EmbedRequest, PooledAnswer, RerankRequest, Role, Said
from ullage_runtime.core.tokens import DetokenizeRequest, TokenizeRequest, Tokens

REVISION = "0a1b2c3d4e"
LOADED = Loaded(
    engine="Fake",
    architecture="fake",
    context_length=512,
    vocabulary_size=256,
    has_chat_template=True,
    device="CPU (fake)",
    layers_offloaded=0,
    layers_total=1,
    load_seconds=0.1,
    dimensions=2,
)

Script = Callable[[GenerateRequest], AsyncIterator[Chunk]]


async def says(*words: str, finish: FinishReason = FinishReason.STOP) -> AsyncIterator[Chunk]:
    yield Chunk(usage=Usage(prompt_tokens=5))
    for word in words[:-1]:
        yield Chunk(text=word)
    yield Chunk(text=words[-1], finish=finish, usage=Usage(5, len(words)))


async def echoes(request: GenerateRequest) -> AsyncIterator[Chunk]:
    if request.messages is not None:
        text = request.messages[-1].content
    else:
        text = request.prompt if isinstance(request.prompt, str) else repr(request.prompt)
    async for chunk in says("You", " said: ", text):
        yield chunk


@dataclass
class Gate:
    """A script that says one word and then waits, noting whether it was cancelled."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    first: str = "One"

    async def __call__(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        try:
            if self.first:
                yield Chunk(text=self.first, usage=Usage(prompt_tokens=5))
            self.began.set()
            await self.opened.wait()
            yield Chunk(text=" two", finish=FinishReason.STOP, usage=Usage(5, 2))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise


def fails_after(*words: str, error: ServingError) -> Script:
    async def script(request: GenerateRequest) -> AsyncIterator[Chunk]:
        for word in words:
            yield Chunk(text=word, usage=Usage(prompt_tokens=5))
        raise error

    return script


def desired_model(name: str, **fields: object) -> DesiredModel:
    given = {
        "task": Task.CHAT,
        "ordinals": (0,),
        "target": DesiredRevision(uri=f"file:{name}.gguf"),
        **fields,
    }
    return DesiredModel(name=name, **given)


@dataclass
class FakeLease:
    model: str
    script: Script
    revision: str = REVISION
    loaded: Loaded = LOADED
    deadline: float = float("inf")
    make_way: asyncio.Event | None = None

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        return self.script(request)

    async def embed(self, request: EmbedRequest, role: Role | None = None) -> PooledAnswer:
        vectors = (Said(array("f", [0.6, 0.8]).tobytes()) for _ in request.inputs)
        return PooledAnswer(tuple(vectors), tuple(len(text) for text in request.inputs))

    async def rerank(self, request: RerankRequest) -> PooledAnswer:
        scores = (Said(array("f", [float(len(text))]).tobytes()) for text in request.documents)
        return PooledAnswer(tuple(scores), tuple(len(text) for text in request.documents))

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        return Tokens(tuple((request.text or "").encode()))

    async def detokenize(self, request: DetokenizeRequest) -> str:
        return bytes(request.tokens).decode()


class FakeModels:
    """A pool of scripted models."""

    def __init__(
        self,
        models: Sequence[DesiredModel] = (),
        scripts: dict[str, Script] | None = None,
        *,
        ordinal: int = 0,
        **document: object,
    ) -> None:
        self.ordinal = ordinal
        self.scripts = scripts or {}
        self.requests: list[GenerateRequest] = []
        self.refusals: dict[str, ServingError] = {}
        self.queue: dict[str, asyncio.Event] = {}
        self.left_queue = asyncio.Event()
        self.closed_with: float | None = None
        self.leases = 0
        self._sequence = 1
        self._change = asyncio.Event()
        self._desired: PoolDesired | None = None
        if models:
            self.have(*models, **document)

    def have(self, *models: DesiredModel, **document: object) -> None:
        self._desired = PoolDesired.model_validate(
            {"namespace": "default", "pool": "default", "models": models, **document}
        ).sealed(1)

    def touch(self) -> None:
        self._sequence += 1
        self._change.set()

    async def apply(self, desired: PoolDesired) -> bool:
        if desired.pool != "default":
            raise ValueError(f"it is for pool {desired.pool!r}")
        if self._desired is not None and desired.sequence < self._desired.sequence:
            return False
        self._desired = desired
        self.touch()
        return True

    @property
    def desired(self) -> PoolDesired | None:
        return self._desired

    def find(self, name: str) -> DesiredModel:
        models = self._desired.models if self._desired else ()
        for model in models:
            if name in model.names:
                return model
        known = ", ".join(m.name for m in models)
        raise ModelNotFound(f"no model {name!r}; there are: {known}", param="model")

    def is_local(self, model: DesiredModel) -> bool:
        return self.ordinal in model.ordinals

    def revision(self, model: DesiredModel) -> str | None:
        return None if model.suspended else REVISION

    @asynccontextmanager
    async def lease(
        self,
        model: DesiredModel,
        *,
        tenant: str = "",
        priority: int = 0,
        beside: bool = False,
        until: float | None = None,
        background: bool = False,
    ) -> AsyncIterator[FakeLease]:
        if model.suspended:
            raise ModelSuspended(f"model {model.name!r} is suspended")
        if model.name in self.refusals:
            raise self.refusals[model.name]
        if model.name in self.queue:
            try:
                await self.queue[model.name].wait()
            except asyncio.CancelledError:
                self.left_queue.set()
                raise
        self.leases += 1
        script = self.scripts.get(model.name, echoes)

        def recorded(request: GenerateRequest) -> AsyncIterator[Chunk]:
            self.requests.append(request)
            return script(request)

        try:
            yield FakeLease(model.name, recorded)
        finally:
            self.leases -= 1

    def cards(self) -> Sequence[ModelCard]:
        models = self._desired.models if self._desired else ()
        return [
            ModelCard(
                m.name,
                m.aliases,
                m.task.value,
                "Resident",
                1_700_000_000,
                self.is_local(m),
                tuple(a.name for a in m.target.adapters),
            )
            for m in sorted(models, key=lambda m: m.name)
        ]

    async def sample(self) -> None:
        """There is nothing to measure."""

    def report(self) -> PodReport:
        models = self._desired.models if self._desired else ()
        return PodReport(
            pod=f"ullage-default-{self.ordinal}",
            ordinal=self.ordinal,
            boot_id="boot",
            sequence=self._sequence,
            acknowledged=self._desired.sequence if self._desired else 0,
            models=tuple(ReportedModel(name=m.name) for m in models),
        )

    def decisions(self) -> Sequence[Decision]:
        return ()

    def revisions(self, name: str) -> Sequence[DesiredRevision]:
        return ()

    def models_changed_since(self, sequence: int) -> frozenset[str] | None:
        return None

    async def changed(self, after: int, timeout: float) -> PodReport:  # noqa: ASYNC109 - the port's
        try:
            async with asyncio.timeout(timeout):
                while self._sequence <= after:
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            pass
        return self.report()

    async def close(self, drain_seconds: float) -> None:
        self.closed_with = drain_seconds
