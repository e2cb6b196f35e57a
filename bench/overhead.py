"""What serving costs above computing: `python -m bench overhead`.

The same file, threads, CPU features and tokens, once in a bare loop around llama.cpp's decode call
and once through HTTP as streams. Both take turns.
"""

import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import llama_cpp
import typer

from bench import machine
from bench.console import console
from bench.environment import only_variant
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from bench.servers import MODEL, Conditions, Running, running
from ullage_runtime.cli.load.workload import Workload, parsed_lengths
from ullage_runtime.engines.limits import cpu_quota
from ullage_runtime.engines.worker.process import worker_environment

ROUNDS = 2
LOOP_SECONDS = 1800.0
OPENMP = ("OMP_", "GOMP_")


def bare(conditions: Conditions, prompt: int, output: int, folder: Path) -> float:
    """Return the tokens per second of the bare loop, the median of its rounds."""
    values = {
        "model": conditions.file,
        "threads": conditions.threads,
        "width": conditions.parallel,
        "context": conditions.context,
        "prompt-tokens": prompt,
        "output-tokens": output,
        "rounds": ROUNDS,
    }
    options = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    site_packages = Path(llama_cpp.__file__).parent.parent
    path = only_variant(site_packages, folder / "variant") if conditions.same_features else None
    # Its threads wait for each other as our workers' do.
    own = worker_environment(os.environ)
    environment = {**os.environ, **{n: v for n, v in own.items() if n.startswith(OPENMP)}}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-m", "bench.bare_loop", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        check=True,
        timeout=LOOP_SECONDS,
    )
    times: list[float] = json.loads(done.stdout)
    return conditions.parallel * output / statistics.median(times)


async def answered(port: int, prompt: str, output: int) -> int:
    """Read one streamed answer to its end; return how many tokens its prompt had.

    It looks at no event but the last: what a client does with an answer would count as the server's
    time where both have the same processors.
    """
    body = json.dumps(
        {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": output,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    text = await reader.read(-1)
    writer.close()
    events = [line for line in text.splitlines() if line.startswith(b"data: ")]
    if len(events) < output or events[-1] != b"data: [DONE]":
        raise SystemExit(f"a request failed: {text[-500:].decode(errors='replace')}")
    return int(json.loads(events[-2][5:])["usage"]["prompt_tokens"])


async def served(server: Running, workload: Workload, width: int) -> tuple[float, int]:
    """Return the tokens per second of as many rounds through HTTP, after one to warm up.

    And how many tokens the server found in a prompt, for the bare loop to compute as many.
    """
    port = int(server.url.rsplit(":", 1)[1])
    rates, prompts = [], []
    for number in range(ROUNDS + 1):
        # A round begins when the one before has ended, as the bare loop's do.
        own = dataclasses.replace(workload, seed=f"{workload.seed}-{number}")
        asks = [own.ask(index) for index in range(width)]
        began = time.perf_counter()
        async with asyncio.timeout(LOOP_SECONDS):
            found = await asyncio.gather(
                *(answered(port, ask.prompt, ask.max_tokens) for ask in asks)
            )
        rates.append(sum(ask.max_tokens for ask in asks) / (time.perf_counter() - began))
        prompts.append(round(statistics.mean(found)))
    return statistics.median(rates[1:]), max(prompts[1:])


def main(
    width: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 8,
    repetitions: Annotated[int, typer.Option(min=1, help="Turns of each.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 64,
    output_tokens: Annotated[int, typer.Option(min=1)] = 64,
    model: Annotated[str, typer.Option(help="Shape of the generated file.")] = "medium",
    threads: Annotated[int, typer.Option(help="0: as many as the CPU quota.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare serving with a bare decode loop."""
    conditions = Conditions(
        file=model_file(model),
        threads=threads or cpu_quota(),
        parallel=width,
        # What is written with so many characters has more tokens.
        context=2 * prompt_tokens + output_tokens + 16,
    )
    kept = Kept("overhead", machine.described(), out)
    runs: list[dict[str, Any]] = []
    workload = Workload(
        "overhead",
        parsed_lengths(str(prompt_tokens)),
        parsed_lengths(str(output_tokens)),
        # The generated files' tokens are bytes.
        characters_per_token=1,
    )
    for repetition in range(repetitions):
        with tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder:
            with running("ullage", conditions, Path(folder)) as server:
                rate, prompt = asyncio.run(served(server, workload, width))
            limit = bare(conditions, prompt, output_tokens, Path(folder))
        runs.append(
            {"repetition": repetition, "promptTokens": prompt, "bare": limit, "served": rate}
        )
        console.print(f"[dim]{repetition + 1}[/] bare {limit:.1f}, served {rate:.1f} tokens/s")
    ratio = statistics.median(run["served"] / run["bare"] for run in runs)
    kept.write(
        {
            "conditions": {
                "model": model,
                "threads": conditions.threads,
                "width": width,
                "promptTokens": prompt_tokens,
                "outputTokens": output_tokens,
            },
            "medianRatio": round(ratio, 4),
            "overheadPercent": round(100 * (1 / ratio - 1), 2),
            "runs": runs,
        }
    )
    overhead = 100 * (1 / ratio - 1)
    console.print(
        f"serving reaches [bold]{100 * ratio:.1f} %[/] of the bare loop's tokens/s: "
        f"an overhead of {overhead:.1f} %"
    )
    kept.tell(console)
