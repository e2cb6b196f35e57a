"""`ullage bench`: how a server of OpenAI's API does under load."""

import math
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from ullage_runtime.cli.console import USAGE, CliError, err, out
from ullage_runtime.cli.listing import print_json
from ullage_runtime.cli.load.driver import Extent, at_once, at_rate
from ullage_runtime.cli.load.outcome import Outcome, Summary, summary
from ullage_runtime.cli.load.target import CANNOT_CONNECT, Endpoint, Target
from ullage_runtime.cli.load.workload import Arrivals, Lengths, Workload, parsed_lengths, starts
from ullage_runtime.cli.loading import effective_settings

T = TypeVar("T", int, float)

DEFAULT_CONCURRENCY: Final = "1,4,8"
REQUESTS_EACH: Final = 8
"""Requests for each one at once, when nothing says how long a load lasts."""
MAX_CONCURRENCY: Final = 4096


@dataclass(frozen=True, slots=True)
class Point:
    """One load: so many requests at once, or so many a second."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"{self.rate:g}/s" if self.rate is not None else str(self.concurrency)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a call asks for."""

    target: Callable[[], Target]
    workload: Callable[[str], Workload]
    points: tuple[Point, ...]
    requests: int | None
    duration: float | None
    arrivals: Arrivals
    max_in_flight: int
    warm_up: int
    seed: str

    def extent(self, point: Point) -> Extent:
        """Return how long a load lasts."""
        if self.requests is None and self.duration is None:
            each = point.concurrency or max(1, math.ceil(point.rate or 1))
            return Extent(requests=REQUESTS_EACH * each)
        return Extent(self.requests, self.duration)


def bench(
    model: Annotated[str, typer.Option("--model", "-m", help="Model to ask.")],
    url: Annotated[
        str | None,
        typer.Option("--url", help="Server to ask. Default: ULLAGE_URL, or http://127.0.0.1:8080."),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency", "-c", help=f"Requests at once. Default: {DEFAULT_CONCURRENCY}."
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option("--rate", "-r", help="Requests a second instead, such as 0.5,1,2."),
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option("--arrivals", help="How requests at a rate are spaced.")
    ] = Arrivals.POISSON,
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", min=1, help="Requests of each load.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", "-d", min=0.1, help="Seconds of each load.")
    ] = None,
    prompt_tokens: Annotated[
        str, typer.Option("--prompt-tokens", help="128, uniform:16:256 or lognormal:128:0.6.")
    ] = "128",
    output_tokens: Annotated[
        str, typer.Option("--output-tokens", help="Likewise; answers may end earlier.")
    ] = "64",
    prompts: Annotated[
        pathlib.Path | None,
        typer.Option("--prompts", help="File with one prompt a line, instead of made-up ones."),
    ] = None,
    shared_prefix: Annotated[
        int, typer.Option("--shared-prefix", min=0, help="Tokens all prompts begin with.")
    ] = 0,
    characters_per_token: Annotated[
        float, typer.Option("--characters-per-token", min=0.1, help="For made-up prompts.")
    ] = 4.5,
    endpoint: Annotated[
        Endpoint, typer.Option("--endpoint", help="Endpoint to ask.")
    ] = Endpoint.CHAT,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", min=0, max=2, help="Sent if given.")
    ] = None,
    seed: Annotated[str, typer.Option("--seed", help="The same seed, the same load.")] = "0",
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=0, help="Requests beforehand, not counted.")
    ] = 1,
    max_in_flight: Annotated[
        int, typer.Option("--max-in-flight", min=1, help="Bound of requests at a rate.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds a request may take.")
    ] = 600.0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a server of OpenAI's API under load and measure how it does.

    [dim]ullage bench --model guide --concurrency 1,4,8[/]

    [dim]ullage bench --model guide --rate 2 --duration 60 --prompt-tokens lognormal:200:0.8[/]
    """
    settings = effective_settings({"url": url}, quiet=True).values
    lengths = (_lengths(prompt_tokens), _lengths(output_tokens))
    lines = _lines(prompts) if prompts is not None else ()

    def target() -> Target:
        return Target(
            settings.url,
            model,
            endpoint=endpoint,
            api_key=settings.api_key.get_secret_value() if settings.api_key else None,
            temperature=temperature,
            seconds=timeout,
        )

    def workload(part: str) -> Workload:
        # Each load has prompts of its own: those of the last may lie in the server's cache.
        name = f"{seed}/{part}"
        return Workload(name, *lengths, characters_per_token, shared_prefix, lines)

    plan = Plan(
        target, workload, _points(concurrency, rate), requests, duration, arrivals, max_in_flight,
        warm_up, seed,
    )  # fmt: skip
    import uvloop

    results = uvloop.run(_measured(plan))
    if as_json:
        given = {"promptTokens": prompt_tokens, "outputTokens": output_tokens, "seed": seed}
        print_json(_document(settings.url, model, endpoint, given, results))
    else:
        out.print(_table(results))
    if not any(found.completed for _, found in results):
        raise CliError("no request was answered", "the column FAILED says why")


async def _measured(plan: Plan) -> list[tuple[Point, Summary]]:
    results = []
    with err.status("[dim]warming up[/]") as status:
        async with plan.target() as target:
            warm = plan.workload("warm-up")
            met = await at_once(target, warm, Extent(requests=plan.warm_up), plan.warm_up)
        if any(outcome.failure == CANNOT_CONNECT for outcome in met):
            raise CliError("nothing answers there", "name a running server with --url")
        for point in plan.points:
            # Each load opens connections of its own, as its clients would.
            async with plan.target() as target:
                done = 0

                def note(_: Outcome, point: Point = point) -> None:
                    nonlocal done
                    done += 1
                    status.update(f"[dim]{point.name}: {done} answered[/]")

                results.append((point, summary(await _load(plan, point, target, note))))
    return results


async def _load(
    plan: Plan, point: Point, target: Target, note: Callable[[Outcome], None]
) -> list[Outcome]:
    workload, extent = plan.workload(point.name), plan.extent(point)
    if point.rate is None:
        return await at_once(target, workload, extent, point.concurrency or 1, note)
    due = starts(point.rate, plan.arrivals, workload.seed)
    return await at_rate(target, workload, extent, due, plan.max_in_flight, note)


def _points(concurrency: str | None, rate: str | None) -> tuple[Point, ...]:
    if rate is None:
        values = _numbers("--concurrency", concurrency or DEFAULT_CONCURRENCY, int)
        if max(values) > MAX_CONCURRENCY:
            raise CliError(f"--concurrency: at most {MAX_CONCURRENCY}", code=USAGE)
        return tuple(Point(concurrency=value) for value in values)
    if concurrency is not None:
        raise CliError(
            "--concurrency and --rate exclude each other",
            "--max-in-flight bounds what a rate has under way",
            USAGE,
        )
    return tuple(Point(rate=value) for value in _numbers("--rate", rate, float))


def _numbers(option: str, text: str, kind: type[T]) -> list[T]:
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise CliError(f"{option}: {text!r} is no list of numbers above 0", code=USAGE)
    return values


def _lengths(text: str) -> Lengths:
    try:
        return parsed_lengths(text)
    except ValueError as error:
        raise CliError(str(error), code=USAGE) from error


def _lines(path: pathlib.Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CliError(f"{path}: {why}", code=USAGE) from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise CliError(f"{path} holds no prompt", "write one on each line", USAGE)
    return prompts


def _document(
    url: str,
    model: str,
    endpoint: Endpoint,
    given: dict[str, str],
    results: Sequence[tuple[Point, Summary]],
) -> dict[str, Any]:
    points = [
        {"concurrency": point.concurrency, "rate": point.rate, **found.to_wire()}
        for point, found in results
    ]
    return {"url": url, "model": model, "endpoint": endpoint.value, **given, "loads": points}


def _table(results: Sequence[tuple[Point, Summary]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in (
        "LOAD", "REQUESTS", "TOKENS/S", "REQUESTS/S", "FIRST TOKEN p50", "p95", "NEXT TOKEN p50",
        "p99", "WHOLE p50", "p95",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("FAILED", overflow="fold")
    for point, found in results:
        failed = ", ".join(f"{count} of {what}" for what, count in found.failures.items())
        table.add_row(
            f"[bold]{point.name}[/]",
            str(found.requests),
            f"{found.tokens_per_second:.1f}",
            f"{found.requests_per_second:.2f}",
            _milliseconds(found.first_token.p50),
            _milliseconds(found.first_token.p95),
            _milliseconds(found.inter_token.p50),
            _milliseconds(found.inter_token.p99),
            _milliseconds(found.request.p50),
            _milliseconds(found.request.p95),
            f"[red]{escape(failed)}[/]" if failed else "",
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
