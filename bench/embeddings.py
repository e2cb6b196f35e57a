"""Texts embedded a second, through HTTP and beside plain onnxruntime: `python -m bench embeddings`.

An encoder of MiniLM's size with random weights embeds texts of 64 tokens, each another one, for 1,
8 and 32 clients that ask for one text at a time. Plain onnxruntime gets them in batches, without
HTTP. The two take turns, each alone on the machine.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import onnxruntime
import structlog
import typer
from rich.table import Table
from tokenizers import Tokenizer

from bench import machine
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
TOKENS: Final = 64
BATCHES: Final = (1, 8, 32)
PATIENCE: Final = 120.0

Texts = Iterator[str]


def fresh_texts(seed: str) -> Texts:
    """Yield texts of 64 tokens, no two alike: vectors that are known would not be computed."""
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choice(WORDS) for _ in range(TOKENS - 2))


def written(folder: Path, precision: str) -> Path:
    """Write the encoder in 32 or 8 bits and return its folder."""
    made = write_onnx(folder / precision, MINILM)
    if precision == "int8":
        plain = made / "model.onnx"
        quantise(plain.rename(folder / "plain.onnx"), plain)
    return made


def plain_speed(folder: Path, batch: int, seconds: float, texts: Texts) -> float:
    """Return the texts a second of onnxruntime alone, tokenizing and pooling included."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_quota()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def embed() -> None:
        ids = [tokenizer.encode(next(texts)).ids for _ in range(batch)]
        tokens = np.array(ids, dtype=np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        vectors = session.run(None, given)[0].mean(axis=1)
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
    folder: Path, clients: tuple[int, ...], seconds: float, texts: Texts
) -> dict[int, dict[str, float]]:
    """Return the texts a second and the median latency for each number of clients."""
    with tempfile.TemporaryDirectory() as state:
        async with served(Path(state), None) as (runtime, client):
            client.timeout = httpx.Timeout(PATIENCE)
            await runtime.models.apply(_document(folder))
            await eventually(
                lambda: all(
                    model.reason is Reason.SERVING for model in runtime.models.report().models
                ),
                PATIENCE,
            )
            return {width: await _asked(client, width, seconds, texts) for width in clients}


async def _asked(
    client: httpx.AsyncClient, width: int, seconds: float, texts: Texts
) -> dict[str, float]:
    latencies: list[float] = []
    began = time.perf_counter()

    async def ask() -> None:
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            answer = await client.post(
                "/v1/embeddings",
                json={"model": "embed", "input": next(texts), "encoding_format": "base64"},
            )
            answer.raise_for_status()
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*(ask() for _ in range(width)))
    speed = len(latencies) / (time.perf_counter() - began)
    return {"textsPerSecond": speed, "p50Seconds": statistics.median(latencies)}


def _document(folder: Path) -> PoolDesired:
    target = DesiredRevision(
        uri=f"file:{folder.name}", engine=EngineSettings(), task=Task.EMBEDDING
    )
    model = DesiredModel(name="embed", task=Task.EMBEDDING, ordinals=(0,), target=target)
    settings = RuntimeSettings(file_roots=(str(folder.parent),))
    return PoolDesired(
        namespace="bench", pool="default", settings=settings, models=(model,)
    ).sealed(1)


def main(
    clients: Annotated[str, typer.Option(help="Clients at once.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each is measured.")] = 10,
    repetitions: Annotated[int, typer.Option(min=1, help="Turns that each takes.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare embedding through HTTP with onnxruntime alone, in 32 and in 8 bits."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    kept = Kept("embeddings", machine.described(), out)
    widths = tuple(int(width) for width in clients.split(","))
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = {each: written(Path(folder), each) for each in ("f32", "int8")}
        for turn in range(repetitions):
            for precision, model in models.items():
                texts = fresh_texts(f"{turn}{precision}")
                for batch in BATCHES:
                    speed = plain_speed(model, batch, seconds, texts)
                    runs.append(_run(precision, "onnxruntime", batch, {"textsPerSecond": speed}))
                found = asyncio.run(served_speeds(model, widths, seconds, texts))
                runs += [_run(precision, "ullage", width, each) for width, each in found.items()]
                kept.write({"tokens": TOKENS, "runs": runs})
    console.print(_table(runs))
    kept.tell(console)


def _run(precision: str, server: str, width: int, found: dict[str, float]) -> dict[str, Any]:
    return {"precision": precision, "server": server, "width": width, **found}


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("WEIGHTS", "", "AT ONCE", "TEXTS/S", "P50"):
        table.add_column(name, justify="left" if name in {"WEIGHTS", ""} else "right")
    kinds = dict.fromkeys((run["precision"], run["server"], run["width"]) for run in runs)
    for kind in kinds:
        these = [r for r in runs if (r["precision"], r["server"], r["width"]) == kind]
        speed = statistics.median(run["textsPerSecond"] for run in these)
        waits = [run["p50Seconds"] for run in these if "p50Seconds" in run]
        wait = f"{1000 * statistics.median(waits):.0f} ms" if waits else ""
        table.add_row(kind[0], kind[1], str(kind[2]), f"{speed:.0f}", wait)
    return table
