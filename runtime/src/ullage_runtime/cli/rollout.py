"""`ullage ab` and `rollback`: two revisions of a model side by side, and the way back to one."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from ullage_runtime.cli.client import ApiClient
from ullage_runtime.cli.console import err, out
from ullage_runtime.cli.listing import JsonOption, print_json, table
from ullage_runtime.cli.loading import effective_settings

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model's name or alias.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Server to ask. Default: ULLAGE_URL, or http://127.0.0.1:8080."),
]


def ab(name: NameArgument, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """Show both revisions that a canary, or a comparison held open, gives requests to."""
    with _client(url) as client:
        found = client.rollout(name)
    if as_json:
        print_json(found)
        return
    swap = found["swap"] or {"arms": [], "step": None}
    if swap["arms"]:
        rows = table("REVISION", "WEIGHT", "REQUESTS", "ERRORS", "TOKEN P50", "TOKEN P95")
        for arm in swap["arms"]:
            rows.add_row(*_row(arm, is_new=arm["revision"] == swap["target"]))
        out.print(rows)
    else:
        err.print(f"no two revisions of {escape(found['id'])} have been compared on this server")
    state = swap["step"] or found["transition"] or found["reason"]
    err.print(f"[dim]{escape(state)}: {escape(found['message'])}[/]", soft_wrap=True)


def rollback(
    name: NameArgument,
    revision: Annotated[
        str | None,
        typer.Argument(
            metavar="REVISION", help="Default: what answered before what is wanted now."
        ),
    ] = None,
    url: UrlOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Go back to a revision that has answered before, until the manifest changes.

    For a server under `ullage up`; on a cluster, annotate the ModelDeployment.
    """
    with _client(url) as client:
        found = client.roll_back(name, revision)
    if as_json:
        print_json(found)
        return
    state = found["transition"] or found["reason"]
    out.print(f"{found['id']} goes back: [bold]{escape(state)}[/]")
    for known in found["revisions"]:
        mark = "●" if known["name"] == found["active"] else " "
        out.print(f"{mark} {known['name']}  [dim]{escape(known['uri'])}[/]")


def _client(url: str | None) -> ApiClient:
    settings = effective_settings({"url": url}, quiet=True).values
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ApiClient(settings.url, api_key=key)


def _row(arm: dict[str, Any], *, is_new: bool) -> tuple[Text | str, ...]:
    return (
        Text(arm["revision"], style="bold" if is_new else ""),
        f"{arm['weight']} %",
        str(arm["requests"]),
        Text(str(arm["errors"]), style="red" if arm["errors"] else ""),
        _milliseconds(arm["token_ms_p50"]),
        _milliseconds(arm["token_ms_p95"]),
    )


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"
