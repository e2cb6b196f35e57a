"""How fast documents come to be found, beside what their model does alone: `bench ingestion`.

A pod, a process of its own, takes in this project's pages and Python's docstrings, with an encoder
of MiniLM's size in 8 bits. The same chunks are then asked of `/v1/embeddings`: in the batches that
ingestion makes of them, by as many clients as it has documents in hand, and in full batches. They
take turns, in another order each time; no vector is kept.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import psutil
import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.ingestion_corpus import batches, documents, encoder_of
from bench.results import RESULTS, Kept
from bench.servers import Command, free_port, started
from tests.support.onnx_models import write_onnx
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.vector_collection import VectorCollectionSpec
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import (
    DesiredCollection,
    DesiredModel,
    DesiredRevision,
    PoolDesired,
)
from ullage_runtime.cli.reading import Source
from ullage_runtime.cli.reading import batches as requests_of
from ullage_runtime.engines.onnx.conversion.quantising import quantise
from ullage_runtime.retrieval.ingest.ingestion import AT_ONCE, BATCH

MODEL: Final = "embed"
PATIENCE: Final = 600.0
LOOK_SECONDS: Final = 0.1
SIDES: Final = ("ingestion", "alone", "full")
"""Documents taken in; the model alone in the same batches; in full ones."""
PARTS: Final = {"ullage_runtime.engines.worker": "model", "ullage_runtime.retrieval.edge": "store"}
"""What the pod's children are, by their modules."""

Chunk = tuple[str, int, str]
"""A document's id, the chunk's place in it, and its text."""
Found = dict[str, Any]


def main(
    docstrings: Annotated[int, typer.Option(min=1, help="Docstrings beside the pages.")] = 500,
    repetitions: Annotated[int, typer.Option(min=1, help="Turns that each takes.")] = 3,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Time documents on their way in, from the first request to the last that can be found."""
    kept = Kept("ingestion", machine.described(), out)
    given = documents(docstrings)
    runs: list[Found] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command, port = _pod(folder, given, repetitions)
        question = ("/v1/embeddings", {"model": MODEL, "input": "x"})
        with started("ullage", command, port, folder, question) as server:
            pod = psutil.Process(server.pid)
            for turn in range(repetitions):
                for found in asyncio.run(_turn(server.url, pod, turn, given)):
                    runs.append(found)
                    kept.write(_summary(len(given), runs))
    console.print(_table(runs))
    console.print(f"share of the model alone: {_summary(len(given), runs)['share']}")
    kept.tell(console)


def _pod(folder: Path, given: Sequence[Found], collections: int) -> tuple[Command, int]:
    """Return how a pod is started that has a collection for each turn, and its port."""
    made = write_onnx(folder / "models" / MODEL, encoder_of([each["text"] for each in given]))
    plain = made / "model.onnx"
    quantise(plain.rename(folder / "plain.onnx"), plain)
    spec = {"pool": "default", "embedding": {"modelDeployment": MODEL}}
    target = DesiredRevision(uri=f"file:{MODEL}", engine=EngineSettings(), task=Task.EMBEDDING)
    desired = PoolDesired(
        namespace="bench",
        pool="default",
        settings=RuntimeSettings(file_roots=(str(made.parent),)),
        models=(DesiredModel(name=MODEL, task=Task.EMBEDDING, ordinals=(0,), target=target),),
        collections=tuple(
            DesiredCollection(name=_name(turn), spec=VectorCollectionSpec.model_validate(spec))
            for turn in range(collections)
        ),
    ).sealed(1)
    (folder / "desired.json").write_text(desired.model_dump_json(by_alias=True))
    port = free_port()
    environment = {
        "ULLAGE_HOST": "127.0.0.1",
        "ULLAGE_PORT": str(port),
        "ULLAGE_STATE_DIR": str(folder / "state"),
        "ULLAGE_MODEL_CACHE_DIR": str(folder / "cache"),
        "ULLAGE_DESIRED_FILE": str(folder / "desired.json"),
        "ULLAGE_EMBEDDINGS_CACHE_MAX_BYTES": "0",
    }
    return Command([sys.executable, "-m", "ullage_runtime"], environment), port


def _name(turn: int) -> str:
    return f"turn-{turn}"


async def _turn(url: str, pod: psutil.Process, turn: int, given: Sequence[Found]) -> list[Found]:
    """Measure each side once; the first time ingestion comes first, as it makes the chunks."""
    order = SIDES[turn % len(SIDES) :] + SIDES[: turn % len(SIDES)]
    runs: list[Found] = []
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        await _ready(client, turn)
        chunks = [] if turn == 0 else await _chunks(client, 0)
        for side in order:
            before = _spent(pod)
            if side == "ingestion":
                seconds = await _ingested(client, turn, given)
                after = _spent(pod)
                chunks = await _chunks(client, turn)
                rates = {"documentsPerSecond": round(len(given) / seconds, 2)}
            else:
                apart = side == "alone"
                seconds = await _embedded(client, batches(chunks, BATCH, apart=apart))
                after, rates = _spent(pod), {}
            runs.append(
                {
                    "side": side,
                    "turn": turn,
                    "seconds": round(seconds, 2),
                    "chunks": len(chunks),
                    "chunksPerSecond": round(len(chunks) / seconds, 2),
                    "processorSeconds": {n: round(after[n] - before[n], 2) for n in after},
                    "load": round(psutil.getloadavg()[0], 2),
                    **rates,
                }
            )
    return runs


async def _ready(client: httpx.AsyncClient, turn: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await client.get(f"/v1/collections/{_name(turn)}")).json()
            if found.get("ready"):
                return
            await asyncio.sleep(LOOK_SECONDS)


async def _ingested(client: httpx.AsyncClient, turn: int, given: Sequence[Found]) -> float:
    """Send documents and return how many seconds it takes until searches see all of them."""
    began = time.perf_counter()
    operations = []
    for some in requests_of([Source(each["id"], each["text"]) for each in given]):
        body = {"documents": [each.to_wire() for each in some]}
        answer = await client.post(f"/v1/collections/{_name(turn)}/documents", json=body)
        answer.raise_for_status()
        operations.append(answer.json()["id"])
    for operation in operations:
        found = await _completed(client, f"/v1/operations/{operation}")
        if found["failed"]:
            raise RuntimeError(f"documents failed: {found['errors']}")
    return time.perf_counter() - began


async def _completed(client: httpx.AsyncClient, path: str) -> Found:
    """Return an operation once it is completed."""
    found: Found = {}
    while found.get("status") != "completed":
        async with client.stream("GET", path, headers={"accept": "text/event-stream"}) as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    found = json.loads(line.removeprefix("data: "))
    return found


async def _chunks(client: httpx.AsyncClient, turn: int) -> list[Chunk]:
    """Return what documents were cut into."""
    found: list[Chunk] = []
    after = None
    while True:
        answer = await client.post(
            f"/v1/collections/{_name(turn)}/points/scroll", json={"limit": 1000, "after": after}
        )
        page = answer.json()
        payloads = [each["payload"] for each in page["points"]]
        found += [(each["document"], each["chunk"], each["text"]) for each in payloads]
        after = page["next"]
        if after is None:
            return found


async def _embedded(client: httpx.AsyncClient, texts: Iterable[list[str]]) -> float:
    """Have the model embed batches, as many at once as ingestion has; return the seconds."""
    waiting = iter(texts)

    async def ask() -> None:
        for batch in waiting:
            body = {"model": MODEL, "input": batch, "encoding_format": "base64"}
            (await client.post("/v1/embeddings", json=body)).raise_for_status()

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return time.perf_counter() - began


def _spent(pod: psutil.Process) -> dict[str, float]:
    """Return the seconds of processors that everybody has taken so far: who computes what."""
    spent = {"pod": 0.0, "model": 0.0, "store": 0.0, "client": 0.0}
    parts = {psutil.Process(): "client", pod: "pod"}
    for child in pod.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = child.cmdline()
            parts[child] = next((PARTS[word] for word in words if word in PARTS), "pod")
    for process, part in parts.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            # Children that have ended count for who started them.
            spent[part] += sum(process.cpu_times()[:4])
    return spent


def _summary(given: int, runs: Sequence[Found]) -> Found:
    def rates(side: str) -> dict[int, float]:
        return {run["turn"]: run["chunksPerSecond"] for run in runs if run["side"] == side}

    ingested = rates("ingestion")
    share = {}
    for side in SIDES[1:]:
        shares = [ingested[turn] / rate for turn, rate in rates(side).items() if turn in ingested]
        if shares:
            found = (min(shares), statistics.median(shares), max(shares))
            share[side] = dict(
                zip(("min", "median", "max"), (round(s, 3) for s in found), strict=True)
            )
    facts = {"documents": given, "batch": BATCH, "atOnce": AT_ONCE}
    return {**facts, "share": share, "runs": list(runs)}


def _table(runs: Sequence[Found]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("", "DOCUMENTS/S", "CHUNKS/S", "LEAST", "MOST"):
        table.add_column(name, justify="right" if name else "left")
    for side in SIDES:
        these = [run for run in runs if run["side"] == side]
        rates = [run["chunksPerSecond"] for run in these]
        whole = [run["documentsPerSecond"] for run in these if "documentsPerSecond" in run]
        numbers = [statistics.median(rates), min(rates), max(rates)]
        told = f"{statistics.median(whole):.1f}" if whole else ""
        table.add_row(side, told, *(f"{number:.1f}" for number in numbers))
    return table
