"""`ullage cache`: what a server keeps of its answers."""

from typing import Annotated, Any

import typer
from rich.text import Text

from ullage_runtime.cli.console import out
from ullage_runtime.cli.listing import JsonOption, UrlOption, client_of, print_json, table
from ullage_runtime.core.sizes import human_bytes

cache = typer.Typer(no_args_is_help=True, help="What a running server keeps of its answers.")


@cache.command("stats")
def stats(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Show what is kept, and how often it was what somebody asked for."""
    with client_of(url) as client:
        found = client.cache_stats()
    if as_json:
        print_json(found)
        return
    rows = table("CACHE", "MODEL", "HITS", "SHARED", "MISSES", "ENTRIES", "SIZE", "LIMIT")
    for state in found["caches"]:
        whole = (str(state["entries"]), human_bytes(state["bytes"]), human_bytes(state["limit"]))
        rows.add_row(Text(state["name"], style="bold"), "", *_lookups(state["models"]), *whole)
        for model in state["models"]:
            rows.add_row("", model["model"], *_lookups([model]))
    out.print(rows)


def _lookups(models: list[dict[str, Any]]) -> list[str]:
    return [str(sum(m[what] for m in models)) for what in ("hits", "shared", "misses")]


@cache.command("clear")
def clear(
    url: UrlOption = None,
    *,
    name: Annotated[
        str | None, typer.Option("--cache", help="embeddings or answers. Default: both.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model whose answers are meant. Default: all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forget what is kept: with an API key, of that key's own answers."""
    with client_of(url) as client:
        cleared = client.clear_cache(cache=name, model=model)
    if as_json:
        print_json(cleared)
        return
    out.print(f"forgot {cleared['entries']} answers, {human_bytes(cleared['bytes'])}")
