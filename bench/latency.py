"""How long a person waits in situations that averages hide: `python -m bench latency`.

- a short request to a small model that does nothing else;
- the first token of a warm model, and how long that model takes to load;
- a second request that begins like the first one, with a system prompt of 1,000 tokens;
- running streams while a prompt of 4,000 tokens comes in.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.metrics import samples
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from bench.servers import MODEL, Conditions, running
from ullage_runtime.cli.load.outcome import Outcome, spread
from ullage_runtime.cli.load.target import LEFT, Endpoint, Target
from ullage_runtime.cli.load.workload import Ask, Workload, parsed_lengths
from ullage_runtime.engines.limits import cpu_quota

GUIDE: Final = Path(__file__).parents[1] / "examples" / "models" / "guide-v1.gguf"
STREAMS: Final = 8
STREAM_TOKENS: Final = 2400
"""More than come while the long prompt is computed; then the streams' clients leave."""
CONTEXT: Final = 2700
"""Tokens for each of the streams and the long prompt, which share them."""
BEGIN_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 6.0
LONG_PROMPT: Final = 4000
SHARED_PROMPT: Final = 1000


def conditions(file: Path, parallel: int, context: int, *, native: bool) -> Conditions:
    """Return how the one server under test is started."""
    return Conditions(
        file=file,
        threads=cpu_quota(),
        parallel=parallel,
        context=context,
        same_features=not native,
    )


def prompts(seed: str, tokens: int) -> Workload:
    """Return made-up prompts of one length; the generated files' tokens are bytes."""
    lengths = parsed_lengths(str(tokens))
    return Workload(seed, lengths, parsed_lengths("1"), characters_per_token=1)


async def alone(target: Target, ask: Ask) -> Outcome:
    """Send one request and return what came of it; raises SystemExit when it failed."""
    outcome = await target.ask(ask, time.perf_counter())
    if outcome.failure is not None:
        raise SystemExit(f"a request failed: {outcome.failure}")
    return outcome


async def short_requests(url: str, count: int) -> dict[str, Any]:
    """Return how long short chats take, one after the other, each with a prompt of its own."""
    async with Target(url, MODEL, temperature=0) as target:
        asks = [Ask(f"What is a pool? ({number})", 8) for number in range(count + 1)]
        outcomes = [await alone(target, ask) for ask in asks][1:]
    return {"requestSeconds": spread([o.ended - o.intended for o in outcomes]).to_wire()}


async def first_tokens(url: str, count: int) -> dict[str, Any]:
    """Return the time to first token of a warm model with nothing else to do."""
    workload = prompts("first", 32)
    async with Target(url, MODEL, endpoint=Endpoint.COMPLETIONS, temperature=0) as target:
        asks = [Ask(workload.ask(number).prompt, 4) for number in range(count + 1)]
        outcomes = [await alone(target, ask) for ask in asks][1:]
    return {"firstTokenSeconds": spread([o.first_token_seconds for o in outcomes]).to_wire()}


async def shared_prompt(url: str, count: int) -> dict[str, Any]:
    """Return how a second request fares that begins like the first."""
    pairs = []
    async with Target(url, MODEL, endpoint=Endpoint.COMPLETIONS, temperature=0) as target:
        for number in range(count):
            system = prompts(f"system-{number}", SHARED_PROMPT).ask(0).prompt
            first, second = [
                await alone(target, Ask(f"{system} {question}", 4))
                for question in ("one question", "another question")
            ]
            pairs.append((first.first_token_seconds, second.first_token_seconds))
    return {
        "firstSeconds": spread([first for first, _ in pairs]).to_wire(),
        "secondSeconds": spread([second for _, second in pairs]).to_wire(),
        "ratio": spread([second / first for first, second in pairs]).to_wire(),
    }


async def interference(url: str, round_: int) -> dict[str, Any]:
    """Return the gaps between tokens of running streams: before, beside and after a long prompt.

    What a stream takes alone grows with what it has written, and it writes a lot meanwhile.
    """
    workload = prompts(f"streams-{round_}", 64)
    long = Ask(prompts(f"long-{round_}", LONG_PROMPT).ask(0).prompt, 4)
    asks = [Ask(workload.ask(number).prompt, STREAM_TOKENS) for number in range(STREAMS)]
    async with (
        Target(url, MODEL, endpoint=Endpoint.COMPLETIONS, temperature=0) as target,
        asyncio.TaskGroup() as group,
    ):
        over = asyncio.Event()
        streams = [group.create_task(target.ask(ask, time.perf_counter(), over)) for ask in asks]
        # All have begun, and run by themselves for a while.
        await asyncio.sleep(BEGIN_SECONDS + IDLE_SECONDS)
        began = time.perf_counter()
        beside = await alone(target, long)
        await asyncio.sleep(IDLE_SECONDS)
        over.set()
    until = began + beside.first_token_seconds
    outcomes = [stream.result() for stream in streams]
    # On a slow machine the last of them begins late, and what it costs the others is not "before".
    all_run = max(outcome.token_times[0] for outcome in outcomes if outcome.token_times)
    before = _gaps(outcomes, max(all_run, began - IDLE_SECONDS), began)
    during = _gaps(outcomes, began, until)
    after = _gaps(outcomes, until + 1.0, until + IDLE_SECONDS)
    if not before or not during or not after:
        raise SystemExit("the streams had ended before the long prompt came")
    if any(outcome.failure != LEFT for outcome in outcomes):
        raise SystemExit("streams had ended, or failed, before the long prompt's first token")
    idle, busy, later = spread(before), spread(during), spread(after)
    return {
        "idleGapSeconds": idle.to_wire(),
        "besideGapSeconds": busy.to_wire(),
        "afterGapSeconds": later.to_wire(),
        "ratioP99": (busy.p99 or 0.0) / (idle.p99 or 1.0),
        "ratioP99After": (busy.p99 or 0.0) / (later.p99 or 1.0),
        "ratioP50": (busy.p50 or 0.0) / (idle.p50 or 1.0),
        "longFirstTokenSeconds": round(beside.first_token_seconds, 3),
    }


def _gaps(outcomes: Sequence[Outcome], since: float, until: float) -> list[float]:
    """Return the seconds between tokens that came within a time."""
    return [
        later - earlier
        for outcome in outcomes
        for earlier, later in zip(outcome.token_times, outcome.token_times[1:], strict=False)
        if since <= earlier and later <= until
    ]


def load_seconds(url: str) -> float:
    """Return how long the model took from its file to its first answer, as the server tells."""
    for sample in samples(url, "ullage_model_load_seconds"):
        if sample.name.endswith("_sum"):
            return sample.value
    raise SystemExit("the server does not tell how long its model took to load")


def main(
    repetitions: Annotated[int, typer.Option(min=1, help="Rounds of each situation.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
    *,
    native: Annotated[
        bool, typer.Option("--native", help="Use all features of the processor.")
    ] = False,
) -> None:
    """Measure what single requests wait for, and keep it."""
    kept = Kept("latency", machine.described(), out)
    found: dict[str, Any] = {"native": native, "roundsAsked": repetitions}
    try:
        _measure(found, repetitions, native=native)
    finally:
        # What was measured before something failed is worth keeping, too.
        kept.write(found)
    console.print(_table(found))
    kept.tell(console)


def _measure(found: dict[str, Any], repetitions: int, *, native: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder:
        small = conditions(GUIDE, 8, 256, native=native)
        with running("ullage", small, Path(folder)) as server:
            found["shortRequest"] = asyncio.run(short_requests(server.url, 4 * repetitions))
        medium = conditions(model_file("medium"), STREAMS + 1, CONTEXT, native=native)
        with running("ullage", medium, Path(folder)) as server:
            found["load"] = {"seconds": round(load_seconds(server.url), 3)}
            found["firstToken"] = asyncio.run(first_tokens(server.url, 4 * repetitions))
            found["sharedPrompt"] = asyncio.run(shared_prompt(server.url, repetitions))
            found["interference"] = []
            for number in range(repetitions):
                found["interference"].append(asyncio.run(interference(server.url, number)))


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("SITUATION", "p50", "p95", "p99"):
        table.add_column(name, justify="left" if name == "SITUATION" else "right")
    for name, values in (
        ("short request, small model", found["shortRequest"]["requestSeconds"]),
        ("first token, warm medium model", found["firstToken"]["firstTokenSeconds"]),
        ("first token, new system prompt", found["sharedPrompt"]["firstSeconds"]),
        ("first token, known system prompt", found["sharedPrompt"]["secondSeconds"]),
    ):
        table.add_row(name, *(f"{values[q] * 1000:.0f} ms" for q in ("p50", "p95", "p99")))
    table.add_row("load, medium model", f"{found['load']['seconds']:.2f} s")
    for each in found["interference"]:
        table.add_row(
            f"{STREAMS} streams beside a long prompt: p99 {each['ratioP99']:.2f}x of before,"
            f" {each['ratioP99After']:.2f}x of after; its first token"
            f" {each['longFirstTokenSeconds']:.1f} s",
            *(f"{each['besideGapSeconds'][q] * 1000:.0f} ms" for q in ("p50", "p95", "p99")),
        )
    return table
