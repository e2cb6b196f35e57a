"""Throughput and latency against concurrency, beside other servers: `python -m bench throughput`.

Every server gets the same file, the same threads and the same prompts. They take turns, each alone
on the machine, several times over and in another order each time, so that what the machine does
meanwhile falls on all of them. What every run measured is kept, with the machine it ran on.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from bench import machine
from bench.comparison import Cell, Middle, Ratio, cells, ratios
from bench.console import console
from bench.environment import cpu_seconds, variants_in_use
from bench.model_file import SHAPES, model_file
from bench.picture import drawn
from bench.results import RESULTS, Kept
from bench.servers import MODEL, SERVERS, Conditions, Running, running
from ullage_runtime.engines.limits import cpu_quota

OURS: Final = "ullage"
LOAD_SECONDS: Final = 3600.0
WARM_UP: Final = 4
"""Requests at most that come before what is measured; wide loads warm up by themselves."""


@dataclass(frozen=True, slots=True)
class Load:
    """What every server is asked."""

    widths: tuple[int, ...]
    requests_each: int
    prompt_tokens: str
    output_tokens: str

    def options(self, width: int, repetition: int) -> list[str]:
        """Return the options of `ullage bench` for one width; each repetition asks anew."""
        return [
            *("--concurrency", str(width), "--requests", str(width * self.requests_each)),
            *("--prompt-tokens", self.prompt_tokens, "--output-tokens", self.output_tokens),
            # The generated files' tokens are bytes.
            *("--characters-per-token", "1", "--temperature", "0"),
            *("--warm-up", str(min(width, WARM_UP))),
            *("--seed", f"repetition-{repetition}", "--timeout", str(LOAD_SECONDS), "--json"),
        ]


def measured(server: Running, load: Load, width: int, repetition: int) -> dict[str, Any]:
    """Return what `ullage bench` measures of a server under one load, and the CPU time it took."""
    program = "from ullage_runtime.cli import main; main()"
    where = ["--url", server.url, "--model", MODEL]
    before = cpu_seconds(server.pid)
    done = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-c", program, "bench", *where, *load.options(width, repetition)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LOAD_SECONDS,
    )
    (found,) = json.loads(done.stdout)["loads"]
    # Warming up is in it, which is the same for all.
    return {**found, "cpuSeconds": round(cpu_seconds(server.pid) - before, 3)}


def runs(
    servers: Sequence[str], conditions: Conditions, load: Load, repetitions: int
) -> Iterator[dict[str, Any]]:
    """Yield one run after the other: servers take turns, beginning with another one each time."""
    for repetition in range(repetitions):
        first = repetition % len(servers)
        for name in (*servers[first:], *servers[:first]):
            with (
                tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder,
                running(name, conditions, Path(folder)) as server,
            ):
                for width in load.widths:
                    found = measured(server, load, width, repetition)
                    variants = variants_in_use(server.pid)
                    head = {"server": name, "repetition": repetition, "variants": variants}
                    yield {**head, "startSeconds": round(server.start_seconds, 3), **found}


def main(
    model: Annotated[
        str, typer.Option(help=f"Shape of the generated file: {', '.join(SHAPES)}.")
    ] = "medium",
    servers: Annotated[str, typer.Option(help="Who is compared.")] = ",".join(SERVERS),
    widths: Annotated[str, typer.Option(help="Requests at once.")] = "1,4,8,16,32",
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each server.")] = 5,
    requests_each: Annotated[
        int, typer.Option(min=1, help="Requests of a run, for each one at once.")
    ] = 3,
    prompt_tokens: Annotated[str, typer.Option(help="As for `ullage bench`.")] = "128",
    output_tokens: Annotated[str, typer.Option(help="Likewise.")] = "64",
    context: Annotated[int, typer.Option(help="Tokens of context of each request.")] = 512,
    threads: Annotated[int, typer.Option(help="0: as many as the CPU quota.")] = 0,
    engine: Annotated[str, typer.Option(help="Further fields of our spec.engine, as JSON.")] = "{}",
    *,
    native: Annotated[
        bool, typer.Option("--native", help="Let each build use all features it has.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare servers and keep what was measured."""
    load = Load(
        tuple(int(w) for w in widths.split(",")), requests_each, prompt_tokens, output_tokens
    )
    conditions = Conditions(
        file=model_file(model),
        threads=threads or cpu_quota(),
        parallel=max(load.widths),
        context=context,
        same_features=not native,
        engine=json.loads(engine),
    )
    facts = machine.described()
    kept = Kept(f"throughput-{model}", facts, out)
    done: list[dict[str, Any]] = []
    for run in runs(servers.split(","), conditions, load, repetitions):
        done.append(run)
        console.print(_line(run))
    found = cells(done)
    compared = list(ratios(found, OURS))
    kept.write(
        {
            "conditions": _conditions(model, conditions, load, repetitions),
            "summary": [cell.to_wire() for cell in found],
            "ratios": [ratio.to_wire() for ratio in compared],
            "runs": done,
        }
    )
    note = (
        f"{facts['processor']}, {conditions.threads} threads; {model} Q8_0, {prompt_tokens} + "
        f"{output_tokens} tokens; medians of {repetitions}, bars from least to most"
    )
    picture = drawn(found, "Ullage beside other servers", note)
    kept.file.with_suffix(".svg").write_text(picture)
    console.print(_table(found))
    for ratio in compared:
        console.print(_said(ratio))
    kept.tell(console)


def _conditions(model: str, conditions: Conditions, load: Load, repetitions: int) -> dict[str, Any]:
    return {
        "model": model,
        "fileBytes": conditions.file.stat().st_size,
        "threads": conditions.threads,
        "parallel": conditions.parallel,
        "context": conditions.context,
        "sameFeatures": conditions.same_features,
        "engine": conditions.engine,
        "requestsEach": load.requests_each,
        "promptTokens": load.prompt_tokens,
        "outputTokens": load.output_tokens,
        "repetitions": repetitions,
    }


def _line(run: dict[str, Any]) -> str:
    failed = run["requests"] - run["completed"]
    return (
        f"[dim]{run['repetition'] + 1}[/] {run['server']:<17} {run['concurrency']:>3} at once  "
        f"{run['tokensPerSecond']:8.1f} tokens/s" + (f"  [red]{failed} failed[/]" if failed else "")
    )


def _table(found: Sequence[Cell]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in (
        "AT ONCE", "SERVER", "TOKENS/S", "FIRST TOKEN p50", "p95", "NEXT TOKEN p50", "p99",
        "CPU s", "FAILED",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name == "SERVER" else "right", no_wrap=True)
    for cell in sorted(found, key=lambda c: c.concurrency):
        values = cell.metrics
        table.add_row(
            str(cell.concurrency),
            cell.server,
            _middle(values.get("tokensPerSecond"), 1, ".1f"),
            *(
                _middle(values.get(name), 1000, ".0f", " ms")
                for name in ("firstTokenP50", "firstTokenP95", "interTokenP50", "interTokenP99")
            ),
            _middle(values.get("cpuSeconds"), 1, ".1f"),
            str(cell.failed or ""),
        )
    return table


def _middle(middle: Middle | None, factor: float, form: str, unit: str = "") -> str:
    if middle is None:
        return ""
    median, low, high = (format(v * factor, form) for v in (middle.median, middle.low, middle.high))
    return f"{median}{unit} [dim]{low}-{high}[/]"


def _said(ratio: Ratio) -> str:
    each = ", ".join(f"{width}: {value:.2f}" for width, value in ratio.by_width.items())
    return f"{ratio.metric} of {ratio.to}: [bold]{ratio.mean:.2f}[/] times ({each})"
