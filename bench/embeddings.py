"""Texts embedded and ranked a second, beside others: `python -m bench embeddings`.

An encoder of MiniLM's size with random weights embeds texts of 64 tokens, each another one, for 1,
8 and 32 clients that ask for one text at a time; one with a head ranks 100 documents for each
client, 128 tokens with the query. infinity-emb is asked through HTTP as well; onnxruntime and
sentence-transformers get the texts in batches, without it. They take turns, each alone on the
machine.
"""

import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import onnxruntime
import structlog
import typer
from rich.table import Table
from tokenizers import Tokenizer

from bench import embedders, machine
from bench.console import console
from bench.results import RESULTS, Kept
from tests.support.encoder_models import WORDS, Encoder
from tests.support.onnx_models import write_onnx
from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision, PoolDesired
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.onnx.conversion.quantising import quantise

MINILM: Final = Encoder(width=384, layers=6, heads=12, feed_forward=1536, context=512)
RANKER: Final = replace(MINILM, has_head=True)
TOKENS: Final = 64
QUERY: Final = " ".join((*WORDS, "the"))
PAIR_TOKENS: Final = 128
SPECIAL_OF_PAIR: Final = 3
DOCUMENTS: Final = 100
BATCHES: Final = (1, 8, 32)
LIBRARY_TEXTS: Final = 4096
PATIENCE: Final = 120.0

Texts = Iterator[str]
Ask = Callable[[Texts], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a server, and how many texts it has to compute for it."""

    path: str
    body: Ask
    texts: int


def fresh_texts(seed: str, words: int = TOKENS - 2) -> Texts:
    """Yield texts of so many tokens, no two alike: vectors that are known would not be computed."""
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choice(WORDS) for _ in range(words))


def fresh_documents(seed: str) -> Texts:
    """Yield documents that have 128 tokens with their query."""
    return fresh_texts(seed, PAIR_TOKENS - SPECIAL_OF_PAIR - len(QUERY.split()))


def _embed(texts: Texts) -> dict[str, Any]:
    return {"model": "embed", "input": next(texts), "encoding_format": "base64"}


def _rank(texts: Texts) -> dict[str, Any]:
    documents = [next(texts) for _ in range(DOCUMENTS)]
    return {"model": "embed", "query": QUERY, "documents": documents}


QUESTIONS: Final = {
    "embed": Question("/v1/embeddings", _embed, 1),
    "rank": Question("/v1/rerank", _rank, DOCUMENTS),
}


def written(folder: Path, kind: str, precision: str) -> Path:
    """Write an encoder in 32 or 8 bits and return its folder."""
    made = write_onnx(folder / f"{kind}-{precision}", RANKER if kind == "rank" else MINILM)
    if precision == "int8":
        plain = made / "model.onnx"
        quantise(plain.rename(folder / f"{kind}-plain.onnx"), plain)
    return made


def plain_speed(folder: Path, kind: str, batch: int, seconds: float, texts: Texts) -> float:
    """Return the texts a second of onnxruntime alone, tokenizing and pooling included."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_quota()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    query = (QUERY,) if kind == "rank" else ()

    def embed() -> None:
        some = [next(texts) for _ in range(batch)]
        found = [tokenizer.encode(*query, text) for text in some]
        tokens = np.array([each.ids for each in found], dtype=np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.array([each.type_ids for each in found], dtype=np.int64),
        }
        computed = session.run(None, given)[0]
        if kind == "embed":
            vectors = computed.mean(axis=1)
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return batch * _rate(embed, seconds)


def _rate(work: Callable[[], None], seconds: float) -> float:
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - began)


async def served_speeds(
    folder: Path, kind: str, clients: Sequence[int], seconds: float, texts: Texts
) -> dict[int, dict[str, float]]:
    """Return our texts a second and the median latency for each number of clients."""
    with tempfile.TemporaryDirectory() as state:
        async with served(Path(state), None) as (runtime, client):
            client.timeout = httpx.Timeout(PATIENCE)
            await runtime.models.apply(_document(folder, kind))
            await eventually(
                lambda: all(
                    model.reason is Reason.SERVING for model in runtime.models.report().models
                ),
                PATIENCE,
            )
            return await _asked_by_all(client, kind, clients, seconds, texts)


async def infinity_speeds(
    model: Path, kind: str, clients: Sequence[int], seconds: float, texts: Texts
) -> dict[int, dict[str, float]]:
    """Return the same of infinity-emb."""
    question = QUESTIONS[kind]
    asked = (question.path, question.body(texts))
    with embedders.infinity(model, cpu_quota(), model.parent, asked) as server:
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, trust_env=False
        ) as client:
            return await _asked_by_all(client, kind, clients, seconds, texts)


async def _asked_by_all(
    client: httpx.AsyncClient, kind: str, clients: Sequence[int], seconds: float, texts: Texts
) -> dict[int, dict[str, float]]:
    return {width: await _asked(client, kind, width, seconds, texts) for width in clients}


async def _asked(
    client: httpx.AsyncClient, kind: str, width: int, seconds: float, texts: Texts
) -> dict[str, float]:
    question = QUESTIONS[kind]
    latencies: list[float] = []
    began = time.perf_counter()

    async def ask() -> None:
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            answer = await client.post(question.path, json=question.body(texts))
            answer.raise_for_status()
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*(ask() for _ in range(width)))
    speed = question.texts * len(latencies) / (time.perf_counter() - began)
    return {"textsPerSecond": speed, "p50Seconds": statistics.median(latencies)}


def _document(folder: Path, kind: str) -> PoolDesired:
    task = Task.RERANK if kind == "rank" else Task.EMBEDDING
    target = DesiredRevision(uri=f"file:{folder.name}", engine=EngineSettings(), task=task)
    model = DesiredModel(name="embed", task=task, ordinals=(0,), target=target)
    settings = RuntimeSettings(file_roots=(str(folder.parent),))
    return PoolDesired(
        namespace="bench", pool="default", settings=settings, models=(model,)
    ).sealed(1)


def main(
    clients: Annotated[str, typer.Option(help="Clients at once.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 10,
    repetitions: Annotated[int, typer.Option(min=1, help="Turns that each takes.")] = 3,
    kinds: Annotated[str, typer.Option(help="What is asked for.")] = "embed,rank",
    *,
    opponents: Annotated[
        bool, typer.Option(help="Beside sentence-transformers and infinity-emb, too: 5 GB.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare embedding and ranking through HTTP with others, in 32 and in 8 bits."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    kept = Kept("embeddings", machine.described(), out)
    widths = tuple(int(width) for width in clients.split(","))
    runs: list[dict[str, Any]] = []
    facts = {"tokens": TOKENS, "pairTokens": PAIR_TOKENS, "documents": DOCUMENTS}
    with tempfile.TemporaryDirectory() as folder:
        for turn, kind in itertools.product(range(repetitions), kinds.split(",")):
            for found in _turn(Path(folder), kind, turn, widths, seconds, opponents=opponents):
                runs.append(found)
                kept.write({**facts, "runs": runs})
    console.print(_table(runs))
    kept.tell(console)


def _turn(
    folder: Path, kind: str, turn: int, widths: Sequence[int], seconds: float, *, opponents: bool
) -> Iterator[dict[str, Any]]:
    """Measure each once, alone."""
    fresh = fresh_documents if kind == "rank" else fresh_texts
    for precision in ("f32", "int8"):
        model = folder / f"{kind}-{precision}"
        if not model.exists():
            written(folder, kind, precision)
        texts = fresh(f"{turn}{precision}")
        for batch in BATCHES:
            speed = plain_speed(model, kind, batch, seconds, texts)
            yield _run(kind, precision, "onnxruntime", batch, {"textsPerSecond": speed})
        answers = asyncio.run(served_speeds(model, kind, widths, seconds, texts))
        for width, found in answers.items():
            yield _run(kind, precision, "ullage", width, found)
    if not opponents:
        return
    torch = folder / f"{kind}-torch"
    if not torch.exists():
        embedders.written(kind, folder / f"{kind}-f32", torch)
    texts = fresh(f"{turn}torch")
    some: list[Any] = list(itertools.islice(texts, LIBRARY_TEXTS))
    if kind == "rank":
        some = [(QUERY, text) for text in some]
    speeds = embedders.library_speeds(
        kind, torch, some, BATCHES, seconds=seconds, threads=cpu_quota()
    )
    for batch, speed in speeds.items():
        yield _run(kind, "f32", "sentence-transformers", batch, {"textsPerSecond": speed})
    answers = asyncio.run(infinity_speeds(torch, kind, widths, seconds, texts))
    for width, found in answers.items():
        yield _run(kind, "f32", "infinity-emb", width, found)


def _run(
    kind: str, precision: str, server: str, width: int, found: dict[str, float]
) -> dict[str, Any]:
    return {"kind": kind, "precision": precision, "server": server, "width": width, **found}


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("ASKED", "WEIGHTS", "", "AT ONCE", "TEXTS/S", "P50"):
        justify: Any = "right" if name in {"AT ONCE", "TEXTS/S", "P50"} else "left"
        table.add_column(name, justify=justify)
    what = ("kind", "precision", "server", "width")
    for each in dict.fromkeys(tuple(run[name] for name in what) for run in runs):
        these = [run for run in runs if tuple(run[name] for name in what) == each]
        speed = statistics.median(run["textsPerSecond"] for run in these)
        waits = [run["p50Seconds"] for run in these if "p50Seconds" in run]
        wait = f"{1000 * statistics.median(waits):.0f} ms" if waits else ""
        table.add_row(*map(str, each), f"{speed:.0f}", wait)
    return table
