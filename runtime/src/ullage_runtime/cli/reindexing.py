"""`ullage reindex`: bring a collection to its spec while it is used, and steer the job."""

import time
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from ullage_api.kinds.memory import Priority
from ullage_api.kinds.reindex_phase import ReindexPhase
from ullage_api.kinds.reindex_settings import CutoverType, OldCollection, ReindexMode
from ullage_runtime.cli.client import ApiClient
from ullage_runtime.cli.console import FAILURE, err, out
from ullage_runtime.cli.listing import JsonOption, UrlOption, client_of, print_json, table

POLL_SECONDS: Final = 0.5
WAITS: Final = frozenset({"Suspended", "WaitingForApproval", "Soaking"})
"""Reasons for which a job waits for somebody, or long: a progress bar ends there."""

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's name.")]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Show a progress bar until it is over, or waits.")
]

reindex = typer.Typer(
    no_args_is_help=True,
    help="Bring a collection to another model or index while it is searched and written.",
)


@reindex.command()
def start(
    collection: Annotated[
        str, typer.Argument(metavar="COLLECTION", help="It is brought to its own spec.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The job's name. Default: from the collection's.")
    ] = None,
    *,
    mode: Annotated[
        ReindexMode | None,
        typer.Option("--mode", help="Copy always leaves a collection to go back to."),
    ] = None,
    cutover: Annotated[
        CutoverType | None, typer.Option("--cutover", help="Manual waits for `approve`.")
    ] = None,
    priority: Annotated[Priority | None, typer.Option("--priority")] = None,
    points_per_second: Annotated[int | None, typer.Option("--points-per-second", min=1)] = None,
    rollback_seconds: Annotated[
        int | None,
        typer.Option("--rollback-seconds", min=0, help="How long one can go back after it."),
    ] = None,
    old: Annotated[
        OldCollection | None, typer.Option("--old", help="What becomes of what was searched.")
    ] = None,
    follow: FollowOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a job.

    [dim]ullage reindex start notes --follow[/]
    """
    given = {
        "collection": collection,
        "mode": mode,
        "cutover": cutover,
        "priority": priority,
        "rollbackSeconds": rollback_seconds,
        "oldCollection": old,
        "rate": {"pointsPerSecond": points_per_second} if points_per_second else None,
    }
    spec = {key: value for key, value in given.items() if value is not None}
    with client_of(url) as client:
        job = name or _free_name(client, collection)
        _show(client, client.start_reindex(job, spec), follow=follow, as_json=as_json)


@reindex.command()
def status(
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Default: a list of all.")
    ] = None,
    *,
    follow: FollowOption = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how a job stands, or list all of them."""
    with client_of(url) as client:
        if job is not None:
            _show(client, client.reindex(job), follow=follow, as_json=as_json)
            return
        found = client.reindexes()
    if as_json:
        print_json(found)
        return
    if not found:
        err.print("no reindex jobs")
        return
    rows = table("JOB", "COLLECTION", "PLAN", "PHASE", "PROGRESS", "RATE", "MESSAGE")
    for each in found:
        rate = each.get("rate")
        rows.add_row(
            Text(each["name"], style="bold"),
            each["collection"],
            each.get("plan") or "",
            Text(each["phase"], style=_style(each)),
            _progress(each),
            "" if rate is None else f"{rate}/s",
            each["message"],
        )
    out.print(rows)


@reindex.command()
def pause(job: JobArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Pause a job; what is written still reaches both collections."""
    _steer(job, "pause", url, as_json=as_json)


@reindex.command()
def resume(job: JobArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Go on with a job that is paused."""
    _steer(job, "resume", url, as_json=as_json)


@reindex.command()
def cancel(job: JobArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Give a job up; searches stay, or are again, where they were."""
    _steer(job, "cancel", url, as_json=as_json)


@reindex.command()
def approve(job: JobArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Let a job whose cutover is Manual switch searches to its target."""
    _steer(job, "approve", url, as_json=as_json)


@reindex.command()
def rollback(job: JobArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Search the old collection again, at once and with every write made since."""
    _steer(job, "rollback", url, as_json=as_json)


@reindex.command()
def change(
    job: JobArgument,
    *,
    points_per_second: Annotated[int | None, typer.Option("--points-per-second", min=1)] = None,
    max_in_flight: Annotated[int | None, typer.Option("--max-in-flight", min=1, max=64)] = None,
    priority: Annotated[Priority | None, typer.Option("--priority")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change how fast a job may go, or which goes first."""
    rate = {"pointsPerSecond": points_per_second, "maxInFlight": max_in_flight}
    rate = {key: value for key, value in rate.items() if value is not None}
    wanted = {"rate": rate or None, "priority": priority}
    with client_of(url) as client:
        found = client.change_reindex(job, {k: v for k, v in wanted.items() if v is not None})
        _show(client, found, follow=False, as_json=as_json)


def _steer(job: str, verb: str, url: str | None, *, as_json: bool) -> None:
    with client_of(url) as client:
        _show(client, client.steer_reindex(job, verb), follow=False, as_json=as_json)


def _free_name(client: ApiClient, collection: str) -> str:
    """Return a name that no job of the server has."""
    taken = {each["name"] for each in client.reindexes()}
    number = 1
    while f"{collection[:32]}-{number}" in taken:
        number += 1
    return f"{collection[:32]}-{number}"


def _show(client: ApiClient, found: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    if follow:
        found = _followed(client, found)
    if as_json:
        print_json(found)
    else:
        _tell(found)
    if found["phase"] == ReindexPhase.FAILED:
        raise typer.Exit(FAILURE)


def _followed(client: ApiClient, found: dict[str, Any]) -> dict[str, Any]:
    """Show a job's progress until it is over or waits for somebody; return how it stands then."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as progress:
        task = progress.add_task("", total=None, said="")
        while not (ReindexPhase(found["phase"]).is_over or found["reason"] in WAITS):
            points = found["points"]
            rate = f"{found['rate']}/s" if found.get("rate") is not None else ""
            left = f"{found['etaSeconds']} s left" if found.get("etaSeconds") is not None else ""
            progress.update(
                task,
                description=f"{escape(found['name'])} {found['phase']}",
                total=points.get("total"),
                completed=points["copied"],
                said=" ".join(part for part in (_progress(found), rate, left) if part),
            )
            time.sleep(POLL_SECONDS)
            found = client.reindex(found["name"])
    return found


def _tell(found: dict[str, Any]) -> None:
    state = Text(found["phase"], style=_style(found))
    plan = f" ({found['plan']}: {found['planReason']})" if found.get("plan") else ""
    out.print(Text(f"{found['name']}: ", style="bold") + state + Text(plan), soft_wrap=True)
    if _progress(found):
        points = found["points"]
        failed = f", {points['failed']} failed" if points["failed"] else ""
        out.print(f"{points['copied']} of {points['total']} ({_progress(found)}){failed}")
    if found["message"]:
        out.print(f"[dim]{escape(found['reason'])}: {escape(found['message'])}[/]", soft_wrap=True)


def _progress(found: dict[str, Any]) -> str:
    points = found["points"]
    total = points.get("total")
    if total is None:
        return ""
    return "100%" if points["copied"] >= total else f"{100 * points['copied'] // total}%"


def _style(found: dict[str, Any]) -> str:
    phase = ReindexPhase(found["phase"])
    styles = {ReindexPhase.SUCCEEDED: "green", ReindexPhase.FAILED: "red"}
    return styles.get(phase, "yellow" if phase.is_over or found["reason"] in WAITS else "cyan")
