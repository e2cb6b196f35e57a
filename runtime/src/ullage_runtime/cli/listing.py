"""`ullage models`, `config`, `keys` and `version`: what there is, said briefly."""

import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

import ullage_runtime
from ullage_runtime.cli.client import ApiClient
from ullage_runtime.cli.console import USAGE, CliError, err, out
from ullage_runtime.cli.loading import effective_settings
from ullage_runtime.http.auth import entry_line, new_key
from ullage_runtime.settings import Settings, shown

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Server to ask. Default: ULLAGE_URL, or http://127.0.0.1:8080."),
]

_SECRET_KEY = re.compile(r"^[-._a-zA-Z0-9]{1,253}$")


def print_json(data: object) -> None:
    """Print JSON for a script: indented for people, the same for both."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def table(*columns: str) -> Table:
    """Return an empty table in our one style."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def client_of(url: str | None) -> ApiClient:
    """Return a client of the server at an address, or of the one that the settings name."""
    settings = effective_settings({"url": url}, quiet=True).values
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ApiClient(settings.url, api_key=key)


def models(url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """List the models of a running server."""
    with client_of(url) as client:
        found = client.models()
    if as_json:
        print_json(found)
        return
    if not found:
        err.print(f"{client.url} serves no models yet")
        return
    rows = table("MODEL", "TASK", "RESIDENCY", "ALIASES")
    for model in found:
        rows.add_row(
            Text(model["id"], style="bold"),
            str(model.get("task", "")),
            _residency(str(model.get("residency", ""))),
            ", ".join(model.get("aliases", ())),
        )
    out.print(rows)


def _residency(text: str) -> Text:
    return Text(text, style={"Resident": "green", "Loading": "cyan"}.get(text, ""))


def config(*, as_json: JsonOption = False) -> None:
    """Show every setting, its value and where it comes from."""
    loaded = effective_settings({}, quiet=False)
    names = sorted(Settings.model_fields)
    if as_json:
        print_json(
            {n: {"value": _plain(loaded.values, n), "origin": loaded.origins[n]} for n in names}
        )
        return
    rows = table("SETTING", "VALUE", "ORIGIN")
    for name in names:
        origin = loaded.origins[name]
        style = "dim" if origin == "default" else ""
        rows.add_row(
            Text(name, style=style or "bold"),
            Text(shown(loaded.values, name), style=style),
            Text(origin, style=style or "cyan"),
        )
    out.print(rows)


def _plain(settings: Settings, name: str) -> Any:
    value = settings.model_dump(mode="json")[name]
    return shown(settings, name) if name == "api_key" and value is not None else value


keys = typer.Typer(no_args_is_help=True, help="API keys of a pool.")


@keys.command("new")
def new(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Name of the key: the tenant in logs and metrics.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Model the key may use; repeatable. Default: all."),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a new key: print it once, and the hashed line for the pool's Secret."""
    if not _SECRET_KEY.match(key_id):
        raise CliError(
            f"{key_id!r} cannot be a key's name",
            "use letters, digits and any of - . _, as in a Secret's keys",
            USAGE,
        )
    key = new_key()
    line = entry_line(key, tuple(model or ()))
    if as_json:
        print_json({"id": key_id, "key": key, "entry": line})
        return
    err.print("[dim]The key; it is not kept anywhere, so hand it over now:[/]")
    sys.stdout.write(f"{key}\n")
    err.print("[dim]What the pool's Secret holds of it:[/]")
    sys.stdout.write(f"{line}\n")
    err.print(
        f"\n  [dim]$[/] kubectl create secret generic ullage-keys --from-literal={key_id}='{line}'",
        soft_wrap=True,
    )


_PARTS = ("llama-cpp-python", "fastapi", "uvicorn", "huggingface-hub")


def versions() -> dict[str, str]:
    """Return the versions that matter in a bug report."""
    found = {"ullage": ullage_runtime.__version__, "python": platform.python_version()}
    for part in _PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            found[part] = "missing"
    return found


def show_version(*, as_json: JsonOption = False) -> None:
    """Show the version, and those of the parts that matter."""
    found = versions()
    if as_json:
        print_json(found)
        return
    first, *rest = found.items()
    out.print(f"[bold]ullage[/] {first[1]}")
    out.print(f"[dim]{', '.join(f'{name} {number}' for name, number in rest)}[/]")
