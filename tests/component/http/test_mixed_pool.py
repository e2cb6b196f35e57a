"""One pool, two engines: a chat model in GGUF, an embedder and a reranker in ONNX, one ledger."""

import asyncio
import contextlib
import itertools
import pathlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.encoder_models import Encoder
from tests.support.fake_models import until
from tests.support.gguf_models import Shape, write_model
from tests.support.onnx_models import write_builds, write_onnx
from tests.support.runtimes import served
from tests.support.workers import checked_ledger, eventually, workers
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings, PrecisionType
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.profile import LevelThresholds, RuntimeSettings
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.engines.procfs import MemoryShare, memory_share
from ullage_runtime.engines.worker.engine import WorkerEngine
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.sources import ModelCache
from ullage_runtime.models.warm import PREFIX_LEAST

PATIENCE = 240.0
"""Seconds for whatever has to come about on a machine that is busy."""
MIB = 1 << 20
NEVER = LevelThresholds(moderate=98, high=99, critical=100)
"""Levels that memory does not reach: who leaves does so for another model, and for nothing else."""
CHANGING = 24 * MIB
"""By how much what the encoders take together may differ from one start to the next."""
SHAPE = Shape(width=256, layers=6, heads=4, feed_forward=1024, chatml_tokens=True)
SHORT, LONG = 4096, 16_384
"""Contexts from which follows how much memory one of another length takes."""
ENCODER = Encoder(width=256, layers=4, feed_forward=1024, context=512)
PROMPT = "You are a patient assistant. " * 6
SHOWN = {Reason.SERVING, Reason.IDLE, Reason.WARM}
"""Reasons of a model that has shown that it serves."""

pytestmark = pytest.mark.timeout(4 * PATIENCE)


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks of one of the models."""

    model: str
    path: str
    body: dict[str, Any]


CHAT = Question("chat", "/v1/completions", {"prompt": PROMPT, "max_tokens": 4, "temperature": 0})
EMBED = Question("embed", "/v1/embeddings", {"input": ["the fox jumped.", "red blue fire"]})
RANK = Question("rank", "/v1/rerank", {"query": "the fox", "documents": ["water", "the fox"]})
QUESTIONS = (CHAT, EMBED, RANK)


class Small(HostMemory):
    """The real memory, of which there is as much as a test says, and the test takes none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def total(self) -> int:
        return self._size

    def _own(self) -> MemoryShare:
        shares = [memory_share(worker.pid) for worker in workers()]
        return MemoryShare(
            private=sum(share.private for share in shares),
            mapped=sum(share.mapped for share in shares),
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "chat.gguf", SHAPE)
    write_builds(folder / "embed", ENCODER)
    write_onnx(folder / "rank", Encoder(width=256, layers=4, feed_forward=1024, has_head=True))
    return folder


def models(context: int, precision: PrecisionType = PrecisionType.F32) -> tuple[DesiredModel, ...]:
    def model(name: str, file: str, task: Task, **engine: Any) -> DesiredModel:
        settings = EngineSettings(threads=1, **engine)
        apart = None if task is Task.CHAT else task
        return DesiredModel(
            name=name,
            uid=name,
            task=task,
            ordinals=(0,),
            target=DesiredRevision(uri=f"file:{file}", engine=settings, task=apart),
            serving=ServingLimits(hold_seconds=int(PATIENCE)),
        )

    return (
        model("chat", "chat.gguf", Task.CHAT, context_length=context, parallel=2),
        model("embed", "embed", Task.EMBEDDING, precision=precision),
        model("rank", "rank", Task.RERANK),
    )


def document(files: pathlib.Path, *wanted: DesiredModel, sequence: int = 1) -> PoolDesired:
    settings = RuntimeSettings(
        file_roots=(str(files),), memory_max_percent=100, memory_reserve_percent=0, levels=NEVER
    )
    return PoolDesired(namespace="team", pool="default", settings=settings, models=wanted).sealed(
        sequence
    )


@contextlib.asynccontextmanager
async def serving(
    folder: pathlib.Path, files: pathlib.Path, device: HostMemory, context: int
) -> AsyncIterator[tuple[ModelPool, httpx.AsyncClient]]:
    pool = ModelPool(
        source=ModelCache(folder / "cache"),
        pod_name="p",
        ordinal=0,
        version="0",
        devices=[device],
    )
    async with served(folder, pool) as (_, client):
        client.timeout = httpx.Timeout(PATIENCE)
        await pool.apply(document(files, *models(context)))
        for name in ("chat", "embed", "rank"):
            await until(pool, lambda m: m.reason in SHOWN, name)
        yield pool, client


async def ask(client: httpx.AsyncClient, question: Question, **further: Any) -> dict[str, Any]:
    body = {"model": question.model, **question.body, **further}
    answer = await client.post(question.path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def reported(pool: ModelPool, name: str) -> ReportedModel:
    found = pool.report().model(name)
    assert found is not None
    return found


async def needs_of(
    folder: pathlib.Path, files: pathlib.Path
) -> tuple[dict[str, int], dict[str, int]]:
    """Return what the encoders are promised and what they take, where there is room for all."""
    async with serving(folder, files, HostMemory(), SHORT) as (pool, _):
        found = {name: reported(pool, name).active for name in ("embed", "rank")}
        active = {name: each for name, each in found.items() if each is not None}
        taken = {name: each.resident_bytes or 0 for name, each in active.items()}
        promised = {name: each.estimated_bytes or 0 for name, each in active.items()}
    return {name: max(promised[name], taken[name]) for name in taken}, taken


async def context_for(file: pathlib.Path, size: int) -> int:
    """Return the context with which the chat model takes so many bytes."""
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        short, long = [
            (await engine.estimate(EngineSpec(str(file), context_length=c, parallel=2))).total
            for c in (SHORT, LONG)
        ]
    finally:
        await engine.unload()
    each = (long - short) / (LONG - SHORT)
    return SHORT + round((size - short) / each / 256) * 256


async def holds(condition: Callable[[], bool]) -> None:
    async def it_does() -> bool:
        return condition()

    await eventually(it_does, PATIENCE)


async def test_models_of_two_engines_share_memory_that_is_too_small_for_all(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    """Both encoders fit, beside what is kept of the chat model, or the chat model alone."""
    promised, taken = await needs_of(tmp_path / "alone", files)
    kept = (files / "chat.gguf").stat().st_size + PREFIX_LEAST
    size = sum(promised.values()) + kept + CHANGING
    context = await context_for(files / "chat.gguf", size - CHANGING // 2)
    async with serving(tmp_path / "shared", files, Small(size), context) as (pool, client):
        await everybody_is_answered(pool, client, size)
        await the_chat_model_comes_back_from_memory(pool, client, size - min(taken.values()))
        rounded = document(files, *models(context, PrecisionType.INT8), sequence=2)
        await the_embedder_is_swapped_under_traffic(pool, client, rounded)
    assert pool.report().devices[0].ledger_bytes == 0


async def everybody_is_answered(pool: ModelPool, client: httpx.AsyncClient, size: int) -> None:
    """Every request is answered in turns, and every eviction says for whom and how much."""
    fullest = 0

    async def asks(question: Question) -> int:
        nonlocal fullest
        for turn in range(2):
            await ask(client, question, **({"user": str(turn)} if question is CHAT else {}))
            fullest = max(fullest, pool.report().devices[0].ledger_bytes)
        return 2

    answered = await asyncio.gather(*(asks(question) for question in QUESTIONS))
    assert answered == [2, 2, 2]
    # Who came first was chance; in this order each has to make way for the other.
    for question in (RANK, CHAT, RANK):
        await ask(client, question)
    assert fullest <= size
    listed = (await client.get("/memory/evictions")).json()["data"]
    moved = [each for each in listed if each["for"]]
    pairs = {(each["model"], each["for"]) for each in moved}
    assert any(victim == "chat" and other in {"embed", "rank"} for victim, other in pairs)
    assert any(victim in {"embed", "rank"} and other == "chat" for victim, other in pairs)
    assert all(each["bytes"] > 0 and each["rule"] for each in moved)
    assert not [decision for decision in pool.decisions() if decision.is_refusal]
    await checked_ledger(pool, seconds=PATIENCE)


async def the_chat_model_comes_back_from_memory(
    pool: ModelPool, client: httpx.AsyncClient, beside: int
) -> None:
    """Encoders take its place, its file and prefixes wait in memory, and it goes on from them.

    With more than the bytes `beside` it leaves no room for an encoder.
    """
    before = await ask(client, CHAT)
    active = reported(pool, "chat").active
    assert active is not None
    assert active.resident_bytes is not None
    assert active.resident_bytes > beside
    await ask(client, EMBED)
    await ask(client, RANK)
    await holds(lambda: reported(pool, "chat").residency is Residency.WARM)
    assert {reported(pool, name).residency for name in ("embed", "rank")} == {Residency.RESIDENT}
    assert reported(pool, "chat").host_bytes > 0
    await checked_ledger(pool, seconds=PATIENCE)
    after = await ask(client, CHAT)
    assert after["choices"][0]["text"] == before["choices"][0]["text"]
    usage = after["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
    active = reported(pool, "chat").active
    assert active is not None
    assert active.promote_seconds is not None
    await checked_ledger(pool, seconds=PATIENCE)


async def the_embedder_is_swapped_under_traffic(
    pool: ModelPool, client: httpx.AsyncClient, rounded: PoolDesired
) -> None:
    """Its 8-bit build takes over while all three are asked, and no request fails."""
    await ask(client, EMBED)
    old = reported(pool, "embed").active
    assert old is not None
    over = asyncio.Event()
    counts = dict.fromkeys(("chat", "embed", "rank"), 0)

    async def asks(question: Question) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            further = {"input": f"the fox {number}"} if question is EMBED else {}
            await ask(client, question, **further)
            counts[question.model] += 1

    def is_swapped() -> bool:
        now = reported(pool, "embed").active
        return now is not None and now.revision != old.revision

    askers = [asyncio.create_task(asks(question)) for question in QUESTIONS]
    try:
        await pool.apply(rounded)
        await holds(is_swapped)
        await holds(lambda: all(counts.values()))
    finally:
        over.set()
        await asyncio.gather(*askers)
    await checked_ledger(pool, seconds=PATIENCE)
