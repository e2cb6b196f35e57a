"""`ullage collections`, `search` and `ingest`: a server's collections."""

import pathlib
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ullage_runtime.cli.client import ApiClient, Refused
from ullage_runtime.cli.console import FAILURE, CliError, err, out
from ullage_runtime.cli.listing import JsonOption, UrlOption, client_of, print_json, table
from ullage_runtime.cli.reading import Source, Unread, Upload, batches, documents

POLL_SECONDS: Final = 0.2
STALLED_SECONDS: Final = 600.0
"""How long an ingestion may show no progress before it is given up; it goes on by itself."""
IN_FLIGHT: Final = 3
"""Requests whose documents the server has not finished, at most."""
SHOWN_ERRORS: Final = 20
EXCERPT: Final = 240
"""Characters of a finding's text that are shown."""

CollectionOption = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="Its name. Default: the only one of the server."),
]


class ModeName(StrEnum):
    """What is searched."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


def collections(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """List the collections of a running server."""
    with client_of(url) as client:
        found = client.collections()
    if as_json:
        print_json(found)
        return
    if not found:
        err.print(f"{client.url} has no collections")
        return
    rows = table("COLLECTION", "MODEL", "DOCUMENTS", "POINTS", "READY", "MESSAGE")
    for each in found:
        rows.add_row(
            Text(each["name"], style="bold"),
            each["model"],
            _count(each.get("documents")),
            _count(each.get("points")),
            Text("yes", style="green") if each["ready"] else Text("no", style="yellow"),
            each["message"],
        )
    out.print(rows)


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for.")],
    collection: CollectionOption = None,
    *,
    mode: Annotated[
        ModeName | None,
        typer.Option("--mode", "-m", help="Meaning, words, or both. Default: both."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 5,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a collection.

    [dim]ullage search "What is ullage?" --collection notes[/]
    """
    body: dict[str, Any] = {"query": query, "limit": limit}
    if mode is not None:
        body["mode"] = mode.value.capitalize()
    with client_of(url) as client:
        found = client.search(_named(client, collection), body)
    if as_json:
        print_json(found)
        return
    for number, hit in enumerate(found["results"], 1):
        payload = hit["payload"]
        where = payload.get("document") or payload.get("source") or hit["id"]
        out.print(f"[bold]{number}. {escape(str(where))}[/] [dim]{hit['score']:.3f}[/]")
        out.print(f"   {escape(_excerpt(str(payload.get('text', ''))))}", soft_wrap=True)
    if not found["results"]:
        err.print("nothing was found")
    if found["degraded"]:
        err.print(f"[yellow]without {escape(', '.join(found['degraded']))}[/]")


def ingest(
    paths: Annotated[
        list[pathlib.Path],
        typer.Argument(
            metavar="PATH…", help="Texts, HTML, PDF and JSONL files, or folders of them."
        ),
    ],
    collection: CollectionOption = None,
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take documents into a collection; what is there already, just so, is left as it is.

    [dim]ullage ingest docs README.md --collection notes[/]

    A text, an HTML page or a PDF is one document, called as its path. A line of a .jsonl file is an
    object with id, text and metadata.
    """
    read = list(documents(paths))
    sources = [each for each in read if isinstance(each, Source | Upload)]
    unread = [each for each in read if isinstance(each, Unread)]
    if not sources:
        raise CliError("there is no text to take in", "name text files, or folders that have some")
    with client_of(url) as client:
        total = _sent(client, _named(client, collection), sources)
    _tell(total, unread, as_json=as_json)
    if total["failed"] or unread:
        raise typer.Exit(FAILURE)


def _sent(client: ApiClient, collection: str, sources: list[Source | Upload]) -> dict[str, Any]:
    """Send documents and see them through; return how they fared, all requests together."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    total: dict[str, Any] = {"total": 0, "done": 0, "unchanged": 0, "failed": 0, "chunks": 0}
    total["errors"] = {}
    running: list[dict[str, Any]] = []
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True) as progress:
        task = progress.add_task(f"into {escape(collection)}", total=len(sources))

        def settle(most: int) -> None:
            """Wait until so many requests, at most, are still being worked on."""
            moved, before = time.monotonic(), -1
            while True:
                running[:] = [client.operation(each["id"]) for each in running]
                finished = [each for each in running if each["status"] == "completed"]
                running[:] = [each for each in running if each["status"] != "completed"]
                for each in finished:
                    _add(total, each)
                settled = total["total"] + sum(e["total"] - e["pending"] for e in running)
                progress.update(task, completed=settled)
                if len(running) <= most:
                    return
                if settled != before:
                    moved, before = time.monotonic(), settled
                elif time.monotonic() - moved > STALLED_SECONDS:
                    raise CliError(
                        f"{len(sources) - settled} documents have made no progress for "
                        f"{STALLED_SECONDS:.0f} s; the server has them and goes on by itself",
                        "`ullage collections` and the server's log say how it stands",
                    )
                time.sleep(POLL_SECONDS)

        for batch in batches([each for each in sources if isinstance(each, Source)]):
            settle(IN_FLIGHT - 1)
            running.append(client.ingest(collection, [each.to_wire() for each in batch]))
        for each in sources:
            if isinstance(each, Upload):
                settle(IN_FLIGHT - 1)
                _upload(client, collection, each, running, total)
        settle(0)
    return total


def _upload(
    client: ApiClient,
    collection: str,
    source: Upload,
    running: list[dict[str, Any]],
    total: dict[str, Any],
) -> None:
    """Send a file; one that is refused is told of with the others' failures."""
    try:
        data = source.path.read_bytes()
        running.append(client.upload(collection, source.id, data, source.media_type))
    except OSError as error:
        _note_failed(total, source, error.strerror or str(error))
    except Refused as error:
        _note_failed(total, source, str(error))


def _note_failed(total: dict[str, Any], source: Upload, why: str) -> None:
    total["total"] += 1
    total["failed"] += 1
    total["errors"][source.id] = why


def _add(total: dict[str, Any], operation: dict[str, Any]) -> None:
    for name in ("total", "done", "unchanged", "failed", "chunks"):
        total[name] += operation[name]
    total["errors"] |= operation["errors"]


def _tell(total: dict[str, Any], unread: Iterable[Unread], *, as_json: bool) -> None:
    problems = {**total["errors"], **{str(each.path): each.why for each in unread}}
    if as_json:
        print_json({**total, "errors": problems})
        return
    parts = [f"{total['done']} documents in {total['chunks']} chunks"]
    if total["unchanged"]:
        parts.append(f"{total['unchanged']} were there already")
    if problems:
        parts.append(f"{len(problems)} could not be taken in")
    out.print(" · ".join(parts))
    for name, why in list(problems.items())[:SHOWN_ERRORS]:
        err.print(f"[red]{escape(name)}[/]: {escape(why)}", soft_wrap=True)
    if len(problems) > SHOWN_ERRORS:
        err.print(f"… and {len(problems) - SHOWN_ERRORS} more; --json has them all")


def _named(client: ApiClient, collection: str | None) -> str:
    """Return the collection that is meant; raises CliError when that is not plain."""
    if collection is not None:
        return collection
    names = [str(each["name"]) for each in client.collections()]
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise CliError(f"which collection? there are: {known}", "name one with --collection NAME")
    return names[0]


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= EXCERPT else f"{flat[: EXCERPT - 1]}…"
