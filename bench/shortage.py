"""Too little memory for everybody at once: `python -m bench shortage`.

Requests at once want four times the tokens that the context holds. What counts is how many are
answered in full, and in what time; a server that fails the rest looks fast only until one counts.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.metrics import samples
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from bench.servers import MODEL, Conditions, Running, running
from ullage_runtime.cli.load.driver import Extent, at_once
from ullage_runtime.cli.load.outcome import summary
from ullage_runtime.cli.load.target import Endpoint, Target
from ullage_runtime.cli.load.workload import Workload, parsed_lengths
from ullage_runtime.engines.limits import cpu_quota

SHORTAGE: Final = 4
SERVERS: Final = ("ullage", "xllamacpp")


async def asked(server: Running, workload: Workload, width: int, requests: int) -> dict[str, Any]:
    """Return what came of a number of requests, so many at once."""
    wanted = {workload.ask(index).max_tokens for index in range(requests)}
    async with Target(
        server.url, MODEL, endpoint=Endpoint.COMPLETIONS, temperature=0, seconds=1800
    ) as target:
        began = time.perf_counter()
        outcomes = await at_once(target, workload, Extent(requests=requests), width)
        seconds = time.perf_counter() - began
    whole = [o for o in outcomes if o.failure is None and o.output_tokens in wanted]
    cut_short = sum(o.failure is None for o in outcomes) - len(whole)
    return {
        **summary(outcomes).to_wire(),
        "cutShort": cut_short,
        "wholePerMinute": round(60 * len(whole) / seconds, 3),
    }


def preemptions(url: str) -> float:
    """Return how often a generation left its cells to others."""
    found = samples(url, "ullage_preemptions")
    return sum(sample.value for sample in found if sample.name.endswith("_total"))


def main(
    width: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a run.")] = 48,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each server.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    output_tokens: Annotated[int, typer.Option(min=1)] = 256,
    model: Annotated[str, typer.Option(help="Shape of the generated file.")] = "medium",
    servers: Annotated[str, typer.Option(help="Who is compared.")] = ",".join(SERVERS),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare servers whose context holds a quarter of what is wanted of it."""
    each = (prompt_tokens + output_tokens) // SHORTAGE
    conditions = Conditions(
        file=model_file(model),
        threads=cpu_quota(),
        parallel=width,
        context=each,
        shares_context=True,
    )
    kept = Kept("shortage", machine.described(), out)
    runs: list[dict[str, Any]] = []
    for repetition in range(repetitions):
        workload = Workload(
            f"shortage-{repetition}",
            parsed_lengths(str(prompt_tokens)),
            parsed_lengths(str(output_tokens)),
            characters_per_token=1,
        )
        names = servers.split(",")
        for name in names if repetition % 2 == 0 else names[::-1]:
            with (
                tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder,
                running(name, conditions, Path(folder)) as server,
            ):
                found = asyncio.run(asked(server, workload, width, requests))
                found["preemptions"] = preemptions(server.url) if name == "ullage" else None
            runs.append({"server": name, "repetition": repetition, **found})
            console.print(
                f"[dim]{repetition + 1}[/] {name:<10} {found['wholePerMinute']:7.1f} whole answers "
                f"a minute, {found['requests'] - found['completed']} failed, "
                f"{found['cutShort']} cut short, preemptions: {found['preemptions']}"
            )
    kept.write(
        {
            "conditions": {
                "model": model,
                "cells": each * width,
                "wanted": (prompt_tokens + output_tokens) * width,
                "width": width,
                "requests": requests,
                "promptTokens": prompt_tokens,
                "outputTokens": output_tokens,
            },
            "runs": runs,
        }
    )
    console.print(_table(runs))
    kept.tell(console)


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("SERVER", "WHOLE ANSWERS/MINUTE", "FAILED", "CUT SHORT", "PREEMPTIONS"):
        table.add_column(name, justify="left" if name == "SERVER" else "right")
    for server in dict.fromkeys(run["server"] for run in runs):
        own = [run for run in runs if run["server"] == server]
        rates = [run["wholePerMinute"] for run in own]
        table.add_row(
            server,
            f"{statistics.median(rates):.1f} [dim]{min(rates):.1f}-{max(rates):.1f}[/]",
            str(sum(run["requests"] - run["completed"] for run in own)),
            str(sum(run["cutShort"] for run in own)),
            ", ".join("" if r["preemptions"] is None else f"{r['preemptions']:.0f}" for r in own),
        )
    return table
