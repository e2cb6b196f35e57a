"""`ullage cache`: what a server keeps of its answers."""

from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from ullage_runtime.cli.console import out
from ullage_runtime.cli.listing import JsonOption, UrlOption, client_of, print_json, table
from ullage_runtime.core.sizes import human_bytes

WARMED_AT_ONCE: Final = 64
"""Texts of one request, which others need not wait for long."""

cache = typer.Typer(no_args_is_help=True, help="What a running server keeps of its answers.")


@cache.command("stats")
def stats(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Show what is kept, and how often it was what somebody asked for."""
    with client_of(url) as client:
        found = client.cache_stats()
    if as_json:
        print_json(found)
        return
    rows = table("CACHE", "MODEL", "HITS", "DISK", "SHARED", "MISSES", "ENTRIES", "SIZE", "LIMIT")
    for state in found["caches"]:
        whole = (str(state["entries"]), human_bytes(state["bytes"]), human_bytes(state["limit"]))
        rows.add_row(Text(state["name"], style="bold"), "", *_lookups(state["models"]), *whole)
        for model in state["models"]:
            rows.add_row("", model["model"], *_lookups([model]))
        if disk := state["disk"]:
            room = (str(disk["entries"]), human_bytes(disk["bytes"]), human_bytes(disk["max"]))
            rows.add_row("  on disk", *[""] * 5, *room)
    out.print(rows)


def _lookups(models: list[dict[str, Any]]) -> list[str]:
    return [str(sum(m[what] for m in models)) for what in ("hits", "disk", "shared", "misses")]


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


class InputType(StrEnum):
    """What texts are, for models that are instructed otherwise for each."""

    QUERY = "query"
    DOCUMENT = "document"


@cache.command("warm")
def warm(
    model: Annotated[str, typer.Argument(help="Embedding model, by name or alias.")],
    file: Annotated[
        typer.FileText, typer.Argument(help="Texts, one a line; -: from standard input.")
    ],
    url: UrlOption = None,
    *,
    input_type: Annotated[
        InputType | None, typer.Option("--input-type", help="What the texts are.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have texts embedded before somebody asks: with an API key, for that key's own requests."""
    texts = list(dict.fromkeys(text for line in file if (text := line.rstrip("\r\n"))))
    tokens = kept = 0
    with client_of(url) as client:
        for start in range(0, len(texts), WARMED_AT_ONCE):
            answer = client.embed(model, texts[start : start + WARMED_AT_ONCE], input_type)
            usage = answer["usage"]
            tokens += usage["prompt_tokens"]
            kept += usage["prompt_tokens_details"]["cached_tokens"]
    told = {"texts": len(texts), "tokens": tokens, "cachedTokens": kept}
    if as_json:
        print_json(told)
        return
    out.print(f"{len(texts)} texts are kept: {tokens} tokens, of which {kept} were there already")
