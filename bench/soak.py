"""Mixed load for a long time, with clients that leave: `python -m bench soak`.

Prompts and answers of all lengths, several tenants' worth of prefixes, and a third of the clients
gone before their answer is complete. Afterwards nothing may run, wait or hold cells, and memory
must be what it was after the first minutes.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import psutil
import typer

from bench import machine
from bench.console import console
from bench.environment import family
from bench.latency import GUIDE
from bench.metrics import samples
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from bench.servers import MODEL, Conditions, running
from ullage_runtime.cli.load.workload import Workload, parsed_lengths
from ullage_runtime.engines.limits import cpu_quota

SAMPLE_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 300.0
LEAVES: Final = 1 / 3
REST_SECONDS: Final = 60.0
GAUGES: Final = (
    "ullage_leases",
    "ullage_requests_running",
    "ullage_requests_waiting",
    "ullage_kv_cache_usage",
)


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0


async def client(url: str, number: int, until: float, workload: Workload, tally: Tally) -> None:
    """Send one request after the other, and leave some of them early."""
    chance = random.Random(number)
    async with httpx.AsyncClient(timeout=REQUEST_SECONDS) as http:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            ask = workload.ask(number * 100_000 + turn)
            leaves_after = chance.randint(0, 20) if chance.random() < LEAVES else None
            body = {
                "model": MODEL,
                "prompt": ask.prompt,
                "max_tokens": ask.max_tokens,
                "temperature": chance.choice((0, 0.8)),
                "stream": True,
            }
            began = time.monotonic()
            outcome = await _read(http, f"{url}/v1/completions", body, leaves_after)
            tally.outcomes[outcome] += 1
            tally.slowest = max(tally.slowest, time.monotonic() - began)
            if outcome not in {"complete", "left"}:
                await asyncio.sleep(0.5)


async def _read(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], leaves_after: int | None
) -> str:
    """Return how a request ended: complete, left, or what went wrong."""
    lines = 0
    try:
        async with http.stream("POST", url, json=body) as response:
            if response.is_error:
                await response.aread()
                return f"{response.status_code} {response.json()['error']['code']}"
            async for line in response.aiter_lines():
                lines += line.startswith("data:")
                if line == "data: [DONE]":
                    return "complete"
                if line.startswith('data: {"error"'):
                    return line
                if leaves_after is not None and lines > leaves_after:
                    return "left"
    except httpx.HTTPError as error:
        return repr(error)
    return "ended without [DONE]"


def measured(pid: int) -> dict[str, int]:
    """Return the memory of the server and of its workers, as proportional set sizes in bytes."""
    processes = family(pid)
    sizes = []
    for process in processes:
        try:
            sizes.append(process.memory_full_info().pss)
        except psutil.NoSuchProcess:
            continue
    return {"server": sizes[0] if sizes else 0, "workers": sum(sizes[1:])}


def gauges(url: str) -> dict[str, float]:
    """Return the metrics that must be 0 once nobody asks any more."""
    return {
        f"{sample.name} {' '.join(sample.labels.values())}": sample.value
        for sample in samples(url, *GAUGES)
    }


def rested(url: str) -> dict[str, float]:
    """Return what a server that is left alone still does, once it is nothing or a minute is up."""
    deadline = time.monotonic() + REST_SECONDS
    while any((left := gauges(url)).values()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


async def loaded(url: str, pid: int, clients: int, seconds: float, workload: Workload) -> Tally:
    """Keep a server busy, and return what happened."""
    tally = Tally()
    began = time.monotonic()
    until = began + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(url, number, until, workload, tally))
        while time.monotonic() < until:
            await asyncio.sleep(min(SAMPLE_SECONDS, max(0.1, until - time.monotonic())))
            elapsed, sizes = time.monotonic() - began, measured(pid)
            tally.samples.append({"seconds": round(elapsed, 1), **sizes})
            shown = ", ".join(f"{name} {size >> 20} MiB" for name, size in sizes.items())
            console.print(f"{elapsed:7.0f} s  {shown}, {dict(tally.outcomes)}")
    return tally


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 30,
    clients: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 24,
    model: Annotated[str, typer.Option(help="Shape of the generated file, or `guide`.")] = "tiny",
    context: Annotated[int, typer.Option(help="Tokens of context of each of 8 sequences.")] = 256,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Load our server with everything at once for a long time."""
    file = GUIDE if model == "guide" else model_file(model)
    conditions = Conditions(file=file, threads=cpu_quota(), parallel=8, context=context)
    kept = Kept("soak", machine.described(), out)
    workload = Workload(
        "soak",
        parsed_lengths("lognormal:120:0.9"),
        parsed_lengths("lognormal:60:0.8"),
        characters_per_token=1,
        shared_prefix=40,
    )
    with (
        tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder,
        running("ullage", conditions, Path(folder)) as server,
    ):
        tally = asyncio.run(loaded(server.url, server.pid, clients, 60 * minutes, workload))
        left = rested(server.url)
    found = {
        "minutes": minutes,
        "clients": clients,
        "model": model,
        "outcomes": dict(tally.outcomes),
        "slowestSeconds": round(tally.slowest, 1),
        "leftAfterwards": left,
        "memory": {name: _trend(tally.samples, name) for name in ("server", "workers")},
        "samples": tally.samples,
    }
    kept.write(found)
    console.print({key: value for key, value in found.items() if key != "samples"})
    kept.tell(console)


def _trend(samples: list[dict[str, Any]], name: str) -> dict[str, int]:
    """Return the median memory of the second and of the last fifth of the time, in bytes."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
    return {
        "early": int(statistics.median(sample[name] for sample in early)),
        "late": int(statistics.median(sample[name] for sample in late)),
    }
